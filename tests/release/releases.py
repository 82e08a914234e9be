"""Short ways to release a few of the sample run's steps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from publish.hub.client import Client
from publish.interrupt import Stop
from publish.release.executors import LocalExecutor
from publish.release.job import make_job
from publish.release.outcome import Outcome
from publish.release.progress import Silent
from publish.release.proposal import propose
from publish.release.repair import Repair
from publish.release.runner import Options, release
from publish.release.work_dir import open_work_dir
from publish.release_file import Release

FEW = (0, 1, 2, 512)
TARGET = "alice/tiny"


def few(samples: Path, folder: Path, steps: tuple[int, ...] = FEW) -> Path:
    """A copy of some steps of the sample run, with its tokenizer."""
    run = folder / "run"
    shutil.copytree(samples / "tokenizer", run / "tokenizer")
    for step in steps:
        shutil.copytree(samples / f"global_step{step}", run / f"global_step{step}")
    return run


def run_release(
    source: str | Path,
    client: Client,
    folder: Path,
    change: dict[str, object] | None = None,
    *,
    workers: int = 2,
    tokenizer: str | None = None,
    verify_logits: str = "changed",
    private: bool = False,
    repair: Repair | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Release ``source`` to alice/tiny; ``change`` replaces fields of the proposed release."""
    proposed: Release = replace(propose(str(source), TARGET, client), **(change or {}))  # type: ignore[arg-type]
    job = replace(make_job(proposed, tokenizer=tokenizer, client=client), verify_logits=verify_logits)
    with open_work_dir(folder / "work") as work_dir:
        executor = LocalExecutor(workers, workers, work_dir.steps, Silent())
        return release(job, client, work_dir, Options(private, repair), executor, stop or Stop(), Silent())
