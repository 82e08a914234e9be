"""``publish demo``: the sample run of this package released on a rehearsal Hub, and one step loaded back."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import threading
from importlib import resources
from pathlib import Path

import click

from publish.cli.all_steps import summary
from publish.cli.rehearse import REHEARSAL_TOKEN, UNLIMITED, load_rehearsal_hub
from publish.errors import StorageError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.interrupt import Stop
from publish.release.executors import LocalExecutor
from publish.release.job import make_job
from publish.release.outcome import Outcome
from publish.release.progress import Progress, progress
from publish.release.proposal import propose
from publish.release.runner import Options, release
from publish.release.work_dir import open_work_dir

SAMPLE = "pythia-tiny-seed1234"
SCHEDULE = "pythia"  # that of its steps
TARGET = f"rehearsal/{SAMPLE}"
REVISION = "step512"


@click.command("demo")
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: a new temporary folder.")
@click.option("--stay", is_flag=True, help="Keep the rehearsal Hub running until Ctrl-C, to look at the result.")
@click.pass_context
def command(ctx: click.Context, work_dir: Path | None, stay: bool) -> None:
    """Release 154 sample checkpoints on a rehearsal Hub. Needs no network and no account."""
    hub_class = load_rehearsal_hub()
    folder = work_dir or Path(tempfile.mkdtemp(prefix="publish-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    run = unpack_samples(folder / "raw")
    click.echo("A real run of a 14,784-parameter GPT-NeoX model, 154 raw checkpoints, to a Hub on this machine.\n")
    with hub_class(folder / "hub", api_quota=UNLIMITED, resolver_quota=UNLIMITED) as hub:
        bar = progress()
        try:
            outcome = release_samples(run, hub.url, folder, bar)
        finally:
            bar.stop()
        click.echo(summary(outcome, SCHEDULE) + "\n")
        if not outcome.failed:
            click.echo(f"Loaded back from the Hub at revision {REVISION}: {load_back(hub.url, folder)}.\n")
        click.echo(next_commands(folder))
        if stay:
            click.echo(f"\nLook at {hub.url}/{TARGET} in a browser; Ctrl-C ends it.")
            wait_for_interrupt()
    ctx.exit(1 if outcome.failed else 0)


def unpack_samples(folder: Path) -> Path:
    """Unpack the sample run below ``folder``, unless it is there; its folder.

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
            raise StorageError(f"cannot unpack the samples: {error}", folder, "choose another --work-dir") from error
    return run


def release_samples(run: Path, url: str, folder: Path, bar: Progress) -> Outcome:
    """Release the run as ``TARGET`` on the rehearsal Hub at ``url``."""
    stop = Stop()
    client = Client(
        Endpoint(url, REHEARSAL_TOKEN),
        stop=stop,
        notify=bar.wait,
        quota_dir=folder / "quota",
        commits_per_hour=UNLIMITED,
    )
    job = make_job(propose(str(run), TARGET, client), client=client)
    with open_work_dir(folder / "work") as work_dir:
        return release(job, client, work_dir, Options(), LocalExecutor.for_job(job, work_dir, None, bar), stop, bar)


def load_back(url: str, folder: Path) -> str:
    """Load one step as any user would, with stock huggingface_hub and transformers, and describe it."""
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # those of huggingface_hub too
    local = snapshot_download(TARGET, revision=REVISION, endpoint=url, cache_dir=folder / "cache", token=False)
    model = AutoModelForCausalLM.from_pretrained(local)
    tokenizer = AutoTokenizer.from_pretrained(local)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}, {parameters:,} parameters, {len(tokenizer)} tokens in its tokenizer"


def next_commands(folder: Path) -> str:
    """The commands that show the result, and that run the demo again."""
    publish = "publish" if shutil.which("publish") else sys.argv[0]
    return (
        f"Look at it:  {publish} hub --root {folder / 'hub'} --port 7860\n"
        f"       then  http://127.0.0.1:7860/{TARGET}\n"
        f"Run again:   {publish} demo --work-dir {folder}   (makes no commit: everything is there)"
    )


def wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("")
