"""A fake cluster first in PATH, a rehearsal Hub that its tasks reach, and an executor that polls often."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.interrupt import Clock, Stop
from publish.rehearsal.server import RehearsalHub
from publish.release.executors import LocalExecutor
from publish.release.job import make_job
from publish.release.outcome import Outcome
from publish.release.progress import Silent
from publish.release.proposal import propose
from publish.release.runner import Options, release
from publish.release.work_dir import open_work_dir
from publish.slurm.commands import Settings, Slurm
from publish.slurm.executor import PollIntervals, SlurmExecutor
from tests.release.releases import TARGET
from tests.slurm.fake import FakeSlurm

MANY = 10**6
QUICK = PollIntervals(results=0.1, queue=0.3, grace=1.0, silence=5.0, refused=0.5)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    fake = FakeSlurm(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield fake
    fake.end()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path / "hub", api_quota=MANY, resolver_quota=MANY) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_alice")
        yield running


@pytest.fixture
def release_on(hub: RehearsalHub, tmp_path: Path) -> Callable[..., Outcome]:
    """Release a run on the cluster, or in this process."""

    def run(
        source: Path,
        settings: Settings | None = None,
        *,
        workers: int = 2,
        local: bool = False,
        held: Clock | None = None,
    ) -> Outcome:
        endpoint, quota = Endpoint(hub.url, "hf_alice"), tmp_path / "quota"
        client = Client(endpoint, clock=held, quota_dir=quota, commits_per_hour=1 if held else MANY)
        if held:
            client.commits.reserve(TARGET)  # every commit of the release waits for that clock
        job = make_job(propose(str(source), TARGET, client), client=client)
        with open_work_dir(tmp_path / "work") as folder:
            executor = (
                LocalExecutor(workers, workers, folder.steps, Silent())
                if local
                else SlurmExecutor(Slurm(), workers, folder.folder, True, Silent(), settings or Settings(), QUICK)
            )
            return release(job, client, folder, Options(), executor, Stop(), Silent())

    return run
