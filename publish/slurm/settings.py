"""What the maintainer asks of Slurm, and the options of sbatch that are ours."""

from __future__ import annotations

from dataclasses import dataclass

from publish.errors import SlurmError

# the driver depends on these; --export could carry a token into a command line
OURS = frozenset(
    [
        "--array",
        "--clusters",
        "--export",
        "--export-file",
        "--help",
        "--job-name",
        "--no-requeue",
        "--open-mode",
        "--output",
        "--error",
        "--parsable",
        "--requeue",
        "--test-only",
        "--usage",
        "--version",
        "--wait",
        "--wrap",
    ]
)
SHORT = {"-a": "--array", "-M": "--clusters", "-J": "--job-name", "-o": "--output", "-e": "--error", "-W": "--wait"}
_NAMED = ("partition", "account", "time", "mem", "cpus")


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of sbatch, as text that Slurm understands; None: the cluster's default."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    mem: str | None = None
    cpus: int | None = None
    further: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option in self.further:
            name = option.split("=")[0].split(maxsplit=1)[0] if option.strip() else option
            name = SHORT.get(name, name)
            if not name.startswith("-") or name.strip("-") == "" or "\n" in option:
                fix = "write it as sbatch does: --sbatch-option=--qos=high"
                raise SlurmError(f"{option!r} is no option of sbatch", "--sbatch-option", fix)
            if name in OURS:
                fix = "leave it out: publish sets it itself"
                raise SlurmError(f"{name} cannot be passed on to sbatch", f"--sbatch-option={option}", fix)

    def arguments(self) -> list[str]:
        """What sbatch is given."""
        names = {"partition": "--partition", "account": "--account", "time": "--time", "mem": "--mem"}
        given = [f"{option}={getattr(self, name)}" for name, option in names.items() if getattr(self, name)]
        if self.cpus is not None:
            given.append(f"--cpus-per-task={self.cpus}")
        return given + [part for option in self.further for part in option.split(maxsplit=1)]

    def given(self) -> tuple[str, ...]:
        """The names of those that were set."""
        return tuple(name for name in (*_NAMED, "further") if getattr(self, name))
