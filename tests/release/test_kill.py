"""Killed at any moment and run again, a release ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.rehearsal.server import RehearsalHub
from tests.release.campaign import partial, state
from tests.release.releases import few

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
REPO = "alice/tiny"


def start(url: str, run: Path, work: Path) -> subprocess.Popen[bytes]:
    code = "from publish.cli import main; main()"
    arguments = ["all-steps", run, REPO, "--work-dir", work, "--workers", "2"]
    env = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_alice"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=env, stdout=quiet, stderr=quiet)


def run_to_the_end(url: str, run: Path, work: Path) -> float:
    begin = time.monotonic()
    assert start(url, run, work).wait(timeout=120) == 0
    return time.monotonic() - begin


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_leave_nothing_wrong(kills: int, samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path, STEPS)
    with RehearsalHub(tmp_path / "undisturbed", api_quota=10**6, resolver_quota=10**6) as hub:
        seconds = run_to_the_end(hub.url, run, tmp_path / "work-undisturbed")
        right = state(hub.url)
    assert len(right) == len(STEPS) + 1
    moments = random.Random(20261124)
    with RehearsalHub(tmp_path / "killed", api_quota=10**6, resolver_quota=10**6) as hub:
        for _ in range(kills):
            process = start(hub.url, run, tmp_path / "work")
            time.sleep(moments.uniform(0.3, seconds))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for branch, files in state(hub.url).items():
                assert not partial(branch, files), f"{branch} shows {sorted(files)}"
        run_to_the_end(hub.url, run, tmp_path / "work")
        assert state(hub.url) == right
        api = HfApi(endpoint=hub.url)
        for branch in right:
            commits = api.list_repo_commits(REPO, revision=branch)
            assert len(commits) == 2, f"{branch} was committed {len(commits) - 1} times"
        assert list((tmp_path / "work").glob("steps-*")) == []
