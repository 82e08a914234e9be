"""The release that the arguments mean: a file, or a source and a target; and these arguments themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from publish.errors import ReleaseError
from publish.release import Release, read_release
from publish.run.init import propose
from publish.run.workplace import sources_folder
from publish.source.kept import KeptReads
from publish.source.sources import Sources
from publish.wire.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])
_SHARED: tuple[Callable[[Any], Any], ...] = (
    click.argument("release_or_source", metavar="RELEASE|SOURCE"),
    click.argument("target", required=False),
    click.option("--steps", help="Only these: 0,1,512 or 1000:143000:1000."),
    click.option("--schedule", help="A name, from-config, or a list of steps."),
)


def of_a_release(command: Command) -> Command:
    """The arguments that mean a release, for every command that takes one."""
    for decorate in reversed(_SHARED):
        command = decorate(command)
    return command


commit_quota = click.option(
    "--commits-per-hour",
    type=click.IntRange(1),
    help="Quota of commits to the target. [default: the release file's, else 128; none on loopback]",
)


in_flight = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Steps in flight. [default: as many as cores, memory and disk allow; 16 tasks on Slurm]",
)


def sources_of(client: Client | None, work_dir: Path | None = None) -> Sources:
    """What a release is made from, read by ``client``; what earlier runs read of it is not asked for again."""
    return Sources(client, KeptReads(sources_folder(work_dir)))


def given_release(release_or_source: str, target: str | None, sources: Sources) -> Release:
    """The release file at the path, or (with ``target``) the release that fits the source.

    Raises:
        ReleaseError: a file and a target, or neither.
    """
    if target is not None:
        return propose(release_or_source, target, sources)
    path = Path(release_or_source)
    if path.is_dir() or not (path.suffix in (".yaml", ".yml") or path.exists()):
        raise ReleaseError(
            "this is a source without a target", release_or_source, "name a release file, or SOURCE and TARGET"
        )
    return read_release(path)
