"""While commits wait for the quota, no more steps lie on the disk than may be in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from tests.clock import ManualClock
from tests.release.releases import TARGET, few, run_release

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


class HeldClock(ManualClock):
    """Waits until it is released, then passes as a manual clock does."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.released = threading.Event(), threading.Event()

    def sleep_until(self, moment: float, interrupt: threading.Event | None = None) -> None:
        self.waiting.set()
        assert self.released.wait(60)
        super().sleep_until(moment, interrupt)


@pytest.mark.parametrize("workers", [1, 3])
def test_folders_while_the_quota_holds_commits(workers: int, samples: Path, tmp_path: Path, hub: RehearsalHub) -> None:
    clock = HeldClock()
    client = Client(Endpoint(hub.url, "hf_alice"), clock=clock, quota_dir=tmp_path / "quota", commits_per_hour=1)
    most = 0
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(run_release, few(samples, tmp_path, STEPS), client, tmp_path, workers=workers)
        try:
            assert clock.waiting.wait(60)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                most = max(most, len(list((tmp_path / "work").glob("steps-*/step*"))))
                time.sleep(0.02)
        finally:
            clock.released.set()
        done = outcome.result(60)
    assert most == workers
    assert (done.published, done.failed, done.main.status) == (STEPS, (), "published")
    assert list((tmp_path / "work").glob("steps-*")) == []


def test_main_is_copied_and_the_final_step_is_not_read_again(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: Callable[[str], Client]
) -> None:
    run, client = few(samples, tmp_path, (0, 1, 512)), client_of("hf_alice")
    api, uploads = HfApi(endpoint=hub.url, token="hf_alice"), []
    for _ in range(2):
        hub.reset_stats()
        outcome = run_release(run, client, tmp_path)
        assert outcome.main.status == "published"
        uploads.append(hub.stats().requests.get("lfs-upload", 0))
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="x.txt", repo_id=TARGET)
    assert uploads == [2, 0]  # steps 0 and 1 have the same weights
    assert outcome.bytes_read == 0
    weights = [
        next(file.lfs.sha256 for file in api.list_repo_tree(TARGET, revision=branch) if file.path.endswith("tensors"))
        for branch in ("main", "step512")
    ]
    assert weights[0] == weights[1]
