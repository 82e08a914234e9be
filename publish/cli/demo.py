"""``publish demo``."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from publish.cli.all_steps import summary
from publish.cli.rehearse import REHEARSAL_TOKEN, UNPACED
from publish.errors import StorageError
from publish.hub.client import Client
from publish.hub.failures import Endpoint
from publish.interrupt import Stop
from publish.rehearsal.server import RehearsalHub
from publish.release.executors import LocalExecutor
from publish.release.job import make_job
from publish.release.outcome import Outcome
from publish.release.progress import Progress, progress
from publish.release.proposal import propose
from publish.release.runner import Options, release
from publish.release.work_dir import open_work_dir

# The demo: the sample run that ships with the package, released whole on a rehearsal Hub, and loaded back.


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


def demo(folder: Path, progress: Progress, stop: Stop, look: Callable[[str], None] | None = None) -> Demo:
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
        job = make_job(propose(str(run), TARGET, client), client=client)
        with open_work_dir(folder / "work") as work_dir:
            executor = LocalExecutor(2, work_dir.steps)
            outcome = release(job, client, work_dir, Options(), executor, stop, progress)
        progress.stop()
        loaded = "not tried, since steps failed" if outcome.failed else _loaded(hub.url, folder)
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


@click.command("demo")
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: a new temporary folder.")
@click.option("--stay", is_flag=True, help="Keep the rehearsal Hub running to look at, until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, work_dir: Path | None, stay: bool) -> None:
    """A whole 154-step release of sample checkpoints on a rehearsal Hub. Needs no network and no account."""
    root = work_dir or Path(tempfile.mkdtemp(prefix="publish-demo-"))
    click.echo("A real run of a 14,784-parameter GPT-NeoX model, 154 raw checkpoints, to a Hub on this machine.\n")
    bar = progress()
    done = demo(root, bar, Stop(), _look if stay else None)
    bar.stop()
    click.echo(summary(done.outcome) + "\n\n" + _next(done))
    ctx.exit(1 if done.outcome.failed else 0)


def _look(url: str) -> None:
    click.echo(f"\nLook at {url} in a browser; Ctrl-C ends it.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("")


def _next(done: Demo) -> str:
    publish = "publish" if shutil.which("publish") else sys.argv[0]
    return (
        f"Loaded back from the Hub at revision step512: {done.loaded}.\n\n"
        f"Look at it:  {publish} hub --root {done.hub} --port 7860\n"
        f"       then  http://127.0.0.1:7860/{done.outcome.target}\n"
        f"Run again:   {publish} demo --work-dir {done.folder}   (makes no commit: everything is there)"
    )
