"""A fake cluster first in PATH, a rehearsal Hub that its tasks reach, and an engine in a hurry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from publish.release.executors import Engine
from publish.release.outcome import Outcome
from publish.slurm.commands import Settings, Slurm
from publish.slurm.executor import Pace, SlurmEngine
from tests.release.releases import run_release
from tests.slurm.fake import FakeSlurm

MANY = 10**6
QUICK = Pace(results=0.1, queue=0.3, grace=1.0, silence=5.0, refused=0.5)
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
    """Release a run, on the cluster unless another engine is named."""

    def release(run: Path, settings: Settings | None = None, engine: Engine | None = None, workers: int = 2) -> Outcome:
        client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=tmp_path / "quota", commits_per_hour=MANY)
        engine = engine or SlurmEngine(Slurm(), settings or Settings(), QUICK)
        return run_release(run, client, tmp_path, engine=engine, workers=workers)

    return release
