"""The demo: the sample run that ships with the package, released whole on a rehearsal Hub, and loaded back."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from publish.errors import StorageError
from publish.rehearsal import RehearsalHub
from publish.run.init import propose
from publish.run.job import make_job
from publish.run.outcome import Outcome
from publish.run.progress import Progress
from publish.run.release import Options, release
from publish.run.where import REHEARSAL_TOKEN, UNPACED
from publish.run.workplace import workplace
from publish.verify.apart import apart
from publish.wire.client import Client
from publish.wire.endpoint import Endpoint

SAMPLE = "pythia-tiny-seed1234"
TARGET = f"rehearsal/{SAMPLE}"
REVISION = "step512"


@dataclass(frozen=True)
class Demo:
    """What the demo did, and where it lies."""

    outcome: Outcome
    loaded: str
    folder: Path
    hub: Path


def samples(folder: Path) -> Path:
    """Unpack the sample run below ``folder``, once.

    Raises:
        StorageError: it cannot be written.
    """
    run = folder / SAMPLE
    if not run.is_dir():
        archive = resources.files("publish") / "samples" / f"{SAMPLE}.tar.xz"
        try:
            with resources.as_file(archive) as path, tarfile.open(path) as tar:
                tar.extractall(folder, filter="data")
        except OSError as error:
            raise StorageError(f"cannot unpack the samples: {error}", folder, "name another --work-dir") from error
    return run


def demo(folder: Path, progress: Progress, stop: threading.Event, look: Callable[[str], None] | None = None) -> Demo:
    """Release the samples on a rehearsal Hub under ``folder`` and load one revision back with transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    run = samples(folder / "raw")
    with RehearsalHub(folder / "hub", api_quota=UNPACED, resolver_quota=UNPACED) as hub:
        client = Client(
            Endpoint(hub.url, REHEARSAL_TOKEN),
            interrupt=stop,
            notify=progress.wait,
            quota_dir=folder / "quota",
            commits_per_hour=UNPACED,
        )
        job = make_job(propose(str(run), TARGET))
        with workplace(folder / "work") as place:
            outcome = release(job, client, place, Options(), progress, stop)
        progress.stop()
        loaded = "not tried, since steps failed" if outcome.failed else apart(_loaded, hub.url, folder)
        if look is not None:
            look(f"{hub.url}/{TARGET}")
    return Demo(outcome, loaded, folder, folder / "hub")


def _loaded(url: str, folder: Path) -> str:
    """Load a step as any user would, with stock huggingface_hub, and say what came."""
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    with _quiet(logging):
        local = snapshot_download(TARGET, revision=REVISION, endpoint=url, cache_dir=folder / "cache", token=False)
        model = AutoModelForCausalLM.from_pretrained(local)
        tokenizer = AutoTokenizer.from_pretrained(local)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}, {parameters:,} parameters, {len(tokenizer)} tokens in its tokenizer"


@contextmanager
def _quiet(logging: object) -> Iterator[None]:
    """No progress bars of other libraries in the middle of ours."""
    before = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    logging.disable_progress_bar()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[attr-defined]
        if before is None:
            del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]
