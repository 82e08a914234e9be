"""``publish demo``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from pathlib import Path

import click

from publish.cli.all_steps import summary
from publish.run.demo import Demo, demo
from publish.run.progress import progress


@click.command("demo")
@click.option("--work-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: a new temporary folder.")
@click.option("--stay", is_flag=True, help="Keep the rehearsal Hub running to look at, until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, work_dir: Path | None, stay: bool) -> None:
    """A whole 154-step release of sample checkpoints on a rehearsal Hub. Needs no network and no account."""
    root = work_dir or Path(tempfile.mkdtemp(prefix="publish-demo-"))
    click.echo("A real run of a 14,784-parameter GPT-NeoX model, 154 raw checkpoints, to a Hub on this machine.\n")
    bar = progress()
    done = demo(root, bar, threading.Event(), _look if stay else None)
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
