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
from pathlib import Path

from publish.errors import SlurmError
from publish.slurm.settings import Settings
from publish.slurm.states import TaskState, fix_of_refusal

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
            fix = "run publish on a login node of the cluster, or leave out --engine slurm"
            raise SlurmError(f"Slurm's {missing[0]} is not on this machine", "PATH", fix)

    def largest_array(self) -> int:
        """How many tasks an array may have: indices are 0 to MaxArraySize - 1.

        Raises:
            SlurmError: the controller does not answer, or allows no arrays.
        """
        found = _ARRAY_SIZE.search(_run("scontrol", "show", "config"))
        if found is None or int(found[1]) < 2:
            told = "no MaxArraySize" if found is None else f"MaxArraySize {found[1]}"
            fix = "job arrays are needed: ask those who run the cluster to allow them"
            raise SlurmError(f"the cluster's config has {told}", "scontrol show config", fix)
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

    def fate(self, name: str, index: int) -> str | None:
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
