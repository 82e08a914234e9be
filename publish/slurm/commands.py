"""Slurm's own commands, the only way to it: sbatch, squeue, scancel, scontrol, sacct.

Outside facts: slurm.schedmd.com, man pages of Slurm 22.05. Jobs are known by name, which the driver chooses before it
submits; so a driver that died while it submitted is no special case.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publish.errors import SlurmError

# What the maintainer asks of Slurm, and the options of sbatch that are ours.


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


# What Slurm says of a task or to a submission, and what a maintainer can do about it.


ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
RUNNING = frozenset(["RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"])
# reasons of pending tasks that no waiting ends; others may pass, when a node comes back or a hold is released
_NEVER = frozenset(
    [
        "PartitionTimeLimit",
        "InvalidAccount",
        "InvalidQOS",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
    ]
)
_LOSSES = {
    "OUT_OF_MEMORY": "ask for more with --mem, then run again",
    "TIMEOUT": "ask for more with --time, then run again",
    "NODE_FAIL": "run again, with other nodes where this one stays ill (--sbatch-option=--exclude=NODE)",
}
_LOSS = "see that the work folder and this Python are on file systems that all nodes share (--work-dir), then run again"
_REFUSALS = (  # what Slurm says, and what a maintainer can do about it
    ("invalid partition", "name a partition of this cluster with --partition (sinfo lists them)"),
    ("account", "name an account of yours with --account (sacctmgr show associations lists them)"),
    ("qos", "pass another limit with --sbatch-option=--qos=..., or ask for less"),
    ("memory", "ask for less with --mem, or for another --partition"),
    ("node configuration", "ask for fewer --cpus or less --mem, or for another --partition"),
    ("time limit", "ask for a shorter --time, or another --partition"),
    ("contact", "wait until the cluster's controller answers (scontrol ping), then run again"),
)
_REFUSAL = "change the options for Slurm (--partition, --account, --time, --mem, --cpus), then run again"


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task of an array as Slurm sees it. ``reason`` is why it does not run yet, or does no more."""

    state: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    def check(self, job: str) -> None:
        """Whether it can ever run.

        Raises:
            SlurmError: Slurm took the job and lets it wait for ever.
        """
        if self.state == "PENDING" and self.reason in _NEVER:
            fix = "ask for what the partition and your account allow (--time, --partition, --account), then run again"
            raise SlurmError(f"Slurm took the tasks and will never run them: {self.reason}", job, fix)


def fix_of_refusal(said: str) -> str:
    """What to do about a command's error."""
    return next((fix for word, fix in _REFUSALS if word in said.lower()), _REFUSAL)


def fix_of_loss(how: str) -> str:
    """What to do about tasks that ended so, without a result."""
    return next((fix for state, fix in _LOSSES.items() if state in how), _LOSS)


PATIENCE = 120.0  # seconds for one command; a busy controller may take a minute
NEEDED = ("sbatch", "squeue", "scancel", "scontrol")
_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)
_JOB = re.compile(r"\d+")


class Slurm:
    """The cluster that this machine submits to.

    Raises SlurmError where a command is absent.
    """

    def __init__(self) -> None:
        if missing := [name for name in NEEDED if shutil.which(name) is None]:
            fix = "run publish on a login node of the cluster, or leave out --executor slurm"
            raise SlurmError(f"Slurm's {missing[0]} is not on this machine", "PATH", fix)

    def largest_array(self) -> int:
        """How many tasks an array may have: indices are 0 to MaxArraySize - 1.

        Raises:
            SlurmError: the controller does not answer, or allows no arrays.
        """
        found = _ARRAY_SIZE.search(_run("scontrol", "show", "config"))
        if found is None or int(found[1]) < 2:
            found_size = "no MaxArraySize" if found is None else f"MaxArraySize {found[1]}"
            fix = "job arrays are needed: ask those who run the cluster to allow them"
            raise SlurmError(f"the cluster's config has {found_size}", "scontrol show config", fix)
        return int(found[1])

    def submit(self, name: str, script: Path, arguments: Sequence[str], array: str, log: Path, wish: Settings) -> str:
        """Submit an array that is never requeued, with the caller's environment; the job's id.

        Raises:
            SlurmError: sbatch's own words.
        """
        options = [
            "--parsable",
            f"--job-name={name}",
            f"--array={array}",
            "--no-requeue",
            "--export=ALL",
            f"--output={log}",
            *wish.arguments(),
        ]
        answer = _run("sbatch", *options, str(script), *arguments)
        lines = answer.split()  # site plugins may talk before it; then "id" or "id;cluster"
        found = _JOB.match(lines[-1]) if lines else None
        if found is None:
            raise SlurmError(
                f"sbatch said no job id but {answer.strip()!r}", "sbatch", "look at squeue, then run again"
            )
        return found[0]

    def tasks(self, names: Sequence[str]) -> dict[tuple[str, int], TaskState]:
        """(job name, array index) -> state, of the tasks that Slurm still knows.

        Raises:
            SlurmError: the controller does not answer.
        """
        if not names:
            return {}
        form = "--format=%j|%K|%T|%r"
        answer = _run("squeue", "--noheader", "--array", "--states=all", *_mine(), f"--name={','.join(names)}", form)
        found = {}
        for line in answer.splitlines():
            name, index, state, reason = (*line.strip().split("|", 3), "", "", "")[:4]
            if index.isdecimal():
                found[name, int(index)] = TaskState(state, reason)
        return found

    def cancel(self, names: Sequence[str]) -> None:
        """End these jobs, pending and running; those that have ended are no error.

        Raises:
            SlurmError: the controller does not answer.
        """
        for name in names:
            _run("scancel", "--quiet", *_mine(), f"--name={name}")

    def sacct_state(self, name: str, index: int) -> str | None:
        """How a task ended, as accounting has it; None where there is no accounting or it knows nothing."""
        if shutil.which("sacct") is None:
            return None
        form = ("--noheader", "--parsable2", "--allocations", "--starttime=now-7days", "--format=JobID,State,ExitCode")
        try:
            answer = _run("sacct", *form, f"--name={name}")
        except SlurmError:
            return None  # accounting is optional: what is asked for is only a better word
        for line in answer.splitlines():
            job, _, end = line.partition("|")
            if job.endswith(f"_{index}") and end:
                return "{}, exit code {}".format(*(*end.split("|"), "unknown")[:2])
        return None


def _mine() -> tuple[str, ...]:
    return (f"--user={os.geteuid()}",)


def _run(command: str, *arguments: str) -> str:
    """The command's standard output. In a session of its own: a Ctrl-C does not tear a submission.

    Raises:
        SlurmError: it failed, with what it wrote to standard error.
    """
    try:
        done = subprocess.run(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SlurmError(f"Slurm's {command} is not on this machine", "PATH", "run on a login node") from error
    except subprocess.TimeoutExpired as error:
        fix = "wait until the cluster's controller answers (scontrol ping), then run again"
        raise SlurmError(f"no answer within {PATIENCE:.0f} s", command, fix) from error
    if done.returncode != 0:
        lines = [line.removeprefix(f"{command}: error: ") for line in (done.stderr or done.stdout).split("\n")]
        said = "; ".join(filter(None, map(str.strip, lines))) or f"it ended with {done.returncode} and said nothing"
        raise SlurmError(f"{command} failed: {said}", command, fix_of_refusal(said))
    return done.stdout
