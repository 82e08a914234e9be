"""Short ways to a release of a few of the sample run's steps."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

from publish.hub.client import Client
from publish.release.job import Wishes, make_job, propose
from publish.release.outcome import Outcome
from publish.release.progress import Silent
from publish.release.runner import Options, release
from publish.release.work_dir import workplace
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
    source: str | Path, client: Client, folder: Path, change: dict[str, object] | None = None, **options: object
) -> Outcome:
    """Release ``source`` to alice/tiny and say what became of it."""
    proposed: Release = replace(propose(str(source), TARGET, client), **(change or {}))  # type: ignore[arg-type]
    job = make_job(proposed, Wishes(tokenizer=str(options.pop("tokenizer", "")) or None), client)
    with workplace(folder / "work") as place:
        return release(job, client, place, Options(**options), Silent(), threading.Event())  # type: ignore[arg-type]
