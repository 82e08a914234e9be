"""Where steps are made: ``--engine``, and what each engine is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from publish.errors import SlurmError
from publish.run.engine import Engine, LocalEngine

Command = TypeVar("Command", bound=Callable[..., Any])
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
    from publish.slurm.commands import Slurm
    from publish.slurm.engine import SlurmEngine
    from publish.slurm.settings import Settings

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
