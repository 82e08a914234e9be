"""Where steps are made: ``--engine``, and what each engine is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from publish.errors import ReleaseError, SlurmError
from publish.hub.client import Client
from publish.release.executors import Engine, LocalEngine
from publish.release.job import propose
from publish.release_file import Release, read_release

# The release that the arguments mean: a file, or a source and a target; and these arguments themselves.


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


def given_release(release_or_source: str, target: str | None, client: Client | None = None) -> Release:
    """The release file at the path, or (with ``target``) the release that fits the source.

    Raises:
        ReleaseError: a file and a target, or neither.
    """
    if target is not None:
        return propose(release_or_source, target, client)
    path = Path(release_or_source)
    if path.is_dir() or not (path.suffix in (".yaml", ".yml") or path.exists()):
        raise ReleaseError(
            "this is a source without a target", release_or_source, "name a release file, or SOURCE and TARGET"
        )
    return read_release(path)


_WISHES: Mapping[str, str] = {  # our option -> the name of the setting
    "partition": "partition",
    "account": "account",
    "time": "time",
    "mem": "mem",
    "cpus": "cpus",
    "sbatch_option": "further",
}
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--engine",
        type=click.Choice(["local", "slurm"]),
        default="local",
        show_default=True,
        help="Make steps in this process, or as tasks of a Slurm job array; the work folder is then a shared one.",
    ),
    click.option("--partition", help="Slurm: the partition."),
    click.option("--account", help="Slurm: the account."),
    click.option("--time", help="Slurm: the time limit of a task, such as 30 or 1:00:00."),
    click.option("--mem", help="Slurm: the memory of a task, such as 8G."),
    click.option("--cpus", type=click.IntRange(1), help="Slurm: the processors of a task."),
    click.option("--sbatch-option", multiple=True, help="Slurm: any further option of sbatch, such as --qos=high."),
)


def _local(**wishes: Any) -> Engine:
    if given := [name for name, value in wishes.items() if value]:
        option = f"--{given[0].replace('_', '-')}"
        raise SlurmError(f"{option} is for Slurm", option, "add --engine slurm, or leave it out")
    return LocalEngine()


def _slurm(**wishes: Any) -> Engine:
    from publish.slurm.commands import Settings, Slurm
    from publish.slurm.executor import SlurmEngine

    return SlurmEngine(Slurm(), Settings(**{_WISHES[name]: value for name, value in wishes.items()}))


ENGINES: Mapping[str, Callable[..., Engine]] = {"local": _local, "slurm": _slurm}


def on_an_engine(command: Command) -> Command:
    """``--engine`` and its options; the command is called with the ``engine`` that they mean."""

    @functools.wraps(command)
    def called(*args: Any, engine: str, **given: Any) -> Any:
        wishes = {name: given.pop(name) for name in _WISHES}
        return command(*args, engine=ENGINES[engine](**wishes), **given)

    decorated: Any = called
    for decorate in reversed(_OPTIONS):
        decorated = decorate(decorated)
    return decorated  # type: ignore[no-any-return]
