"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from publish.errors import ReleaseError, SlurmError
from publish.hub.client import Client
from publish.release.job import RunIndex
from publish.release.proposal import propose
from publish.release_file import Release, read_release
from publish.sources.runs import open_run, parse_location

if TYPE_CHECKING:
    from publish.slurm.commands import Settings, Slurm

Command = TypeVar("Command", bound=Callable[..., Any])
_RELEASE: tuple[Callable[[Any], Any], ...] = (
    click.argument("release_or_source", metavar="RELEASE|SOURCE"),
    click.argument("target", required=False),
    click.option("--steps", help="Only these: 0,1,512 or 1000:143000:1000."),
    click.option("--schedule", help="A name, from-config, or a list of steps."),
)


def release_arguments(command: Command) -> Command:
    """RELEASE, or SOURCE and TARGET, with the steps and the schedule: for every command that takes a release."""
    for decorate in reversed(_RELEASE):
        command = decorate(command)
    return command


quota_option = click.option(
    "--commits-per-hour",
    type=click.IntRange(1),
    help="Quota of commits to the target. [default: the release file's, else 128; none on loopback]",
)


workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Steps in flight. [default: 8, as far as the disk allows; 16 tasks on Slurm]",
)


def read_or_propose(release_or_source: str, target: str | None, client: Client) -> tuple[Release, RunIndex | None]:
    """The release file RELEASE, or the release that fits SOURCE, to TARGET, with the run that was opened for it.

    Raises:
        ReleaseError: a file and a target, or neither.
    """
    if target is not None:
        index = RunIndex(open_run(parse_location(release_or_source), client))
        return propose(release_or_source, target, client, index), index
    path = Path(release_or_source)
    if path.is_dir() or not (path.suffix in (".yaml", ".yml") or path.exists()):
        raise ReleaseError(
            "not a release file, and no TARGET is given", release_or_source, "name a release file, or SOURCE and TARGET"
        )
    return read_release(path), None


_SLURM = ("partition", "account", "time", "mem", "cpus", "sbatch_option")
_EXECUTOR: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--executor",
        type=click.Choice(["local", "slurm"]),
        default="local",
        show_default=True,
        help="Make steps in this process, or as tasks of a Slurm job array whose nodes share the work folder.",
    ),
    click.option("--partition", help="Slurm: the partition."),
    click.option("--account", help="Slurm: the account."),
    click.option("--time", help="Slurm: the time limit of a task, such as 30 or 1:00:00."),
    click.option("--mem", help="Slurm: the memory of a task, such as 8G."),
    click.option("--cpus", type=click.IntRange(1), help="Slurm: the processors of a task."),
    click.option("--sbatch-option", multiple=True, help="Slurm: any other option of sbatch, such as --qos=high."),
)


def executor_options(command: Command) -> Command:
    """``--executor`` and its options."""
    for decorate in reversed(_EXECUTOR):
        command = decorate(command)
    return command


def slurm_options(executor: str, given: Mapping[str, Any]) -> tuple[Slurm, Settings] | None:
    """The cluster and what the options ask of it; None for the local executor.

    Raises:
        SlurmError: Slurm is not on this machine, an option of Slurm is given for the local executor, or an option
            that sbatch may not get.
    """
    from publish.slurm.commands import Settings, Slurm

    named = {name: given[name] for name in _SLURM}
    if executor == "slurm":
        further = named.pop("sbatch_option")
        return Slurm(), Settings(**named, further=further)
    if option := next((f"--{name.replace('_', '-')}" for name, value in named.items() if value), None):
        raise SlurmError(f"{option} is an option for Slurm", option, "add --executor slurm, or leave it out")
    return None
