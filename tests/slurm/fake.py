"""A Slurm of four small programs: sbatch, squeue, scancel and scontrol, which run tasks as processes of this machine.

``python -m tests.slurm.fake COMMAND ARGUMENTS`` with the state in ``FAKE_SLURM``: ``config.json`` says how it behaves,
``calls`` holds a line a call, ``jobs/ID/INDEX`` the state of a task: ``name|state|process``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")


class FakeSlurm:
    """The cluster as a test sees it. ``bin`` goes first in PATH."""

    def __init__(self, folder: Path, max_array_size: int = 1001, **config: object) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "jobs").mkdir()
        self.configure(max_array_size=max_array_size, **config)
        root = Path(__file__).resolve().parents[2]
        for name in COMMANDS:
            program = self.bin / name
            settings = f"FAKE_SLURM='{folder}' PYTHONPATH='{root}'"
            program.write_text(f"#!/bin/sh\n{settings} exec '{sys.executable}' -m tests.slurm.fake {name} \"$@\"\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def configure(self, **config: object) -> None:
        """Change how it behaves: ``max_array_size``, ``refuse`` (sbatch's error), ``lose`` and ``kill``: so many
        of the next tasks vanish, or are killed as they start."""
        _configure(self.folder, config)

    def calls(self, command: str) -> list[list[str]]:
        """The arguments of every call so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call[1:] for call in map(json.loads, lines) if call[0] == command]

    def arrays(self) -> list[str]:
        """The --array of every submission."""
        return [a.split("=")[1] for call in self.calls("sbatch") for a in call if a.startswith("--array=")]

    def tasks(self) -> list[tuple[str, str, int]]:
        """Name, state and process of every task."""
        return [(name, state, process) for _, name, state, process in _tasks(self.folder)]

    def processes(self) -> list[int]:
        """The processes of tasks that run."""
        return [process for _, state, process in self.tasks() if state == "RUNNING" and process]

    def end(self) -> None:
        """Stop everything that it started."""
        for path in self.folder.glob("jobs/*/daemon"):
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _configure(folder: Path, change: dict[str, object]) -> None:
    path = folder / "config.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({**before, **change}))
    temporary.replace(path)


def _tasks(folder: Path) -> Iterator[tuple[Path, str, str, int]]:
    for path in sorted(folder.glob("jobs/*/*")):
        if path.name.isdecimal():
            name, state, process = path.read_text().split("|")
            yield path, name, state, int(process)


def _put(path: Path, name: str, state: str, process: int = 0) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(f"{name}|{state}|{process}")
    temporary.replace(path)


def _option(arguments: list[str], name: str) -> str:
    return next(each.split("=", 1)[1] for each in arguments if each.startswith(f"{name}="))


def sbatch(folder: Path, config: dict[str, Any], arguments: list[str]) -> int:
    if refuse := config.get("refuse"):
        print(f"sbatch: error: Batch job submission failed: {refuse}", file=sys.stderr)
        return 1
    number = 1 + len(list((folder / "jobs").iterdir()))
    job = folder / "jobs" / str(number)
    job.mkdir()
    found = re.fullmatch(r"0-(\d+)%(\d+)", _option(arguments, "--array"))
    assert found is not None
    assert int(found[1]) < config["max_array_size"]
    for index in range(int(found[1]) + 1):
        _put(job / str(index), _option(arguments, "--job-name"), "PENDING")
    position = next(i for i, each in enumerate(arguments) if each.startswith("/"))
    daemon = [sys.executable, "-m", "tests.slurm.fake", "daemon", str(number), found[2], _option(arguments, "--output")]
    quiet = subprocess.DEVNULL
    command = [*daemon, *arguments[position:]]
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    (job / "daemon").write_text(str(process.pid))
    print(number)
    return 0


def daemon(folder: Path, config: dict[str, Any], arguments: list[str]) -> int:
    """Run the tasks of an array, some at once, until none is left."""
    job, most, log, *command = folder / "jobs" / arguments[0], int(arguments[1]), *arguments[2:]
    running: dict[int, subprocess.Popen[bytes]] = {}
    while True:
        config = json.loads((folder / "config.json").read_text())
        states = {int(path.name): (name, state) for path, name, state, _ in _tasks(folder) if path.parent == job}
        for index, process in list(running.items()):
            if process.poll() is not None:
                state = (
                    "CANCELLED" if states[index][1] == "CANCELLED" else "FAILED" if process.returncode else "COMPLETED"
                )
                _put(job / str(index), states[index][0], state)
                del running[index]
        pending = [index for index, (_, state) in states.items() if state == "PENDING"]
        if not pending and not running:
            return 0
        for index in pending[: max(0, most - len(running))]:
            if config.get("lose", 0) > 0:
                _configure(folder, {"lose": config["lose"] - 1})
                (job / str(index)).unlink()
                break
            env = {**os.environ, "SLURM_ARRAY_TASK_ID": str(index)}
            with Path(log.replace("%a", str(index))).open("ab") as output:
                running[index] = subprocess.Popen(["/bin/sh", *command], stdout=output, stderr=output, env=env)
            _put(job / str(index), states[index][0], "RUNNING", running[index].pid)
            if config.get("kill", 0) > 0:
                _configure(folder, {"kill": config["kill"] - 1})
                running[index].kill()
                break
        time.sleep(0.05)


def squeue(folder: Path, config: dict[str, Any], arguments: list[str]) -> int:
    names = _option(arguments, "--name").split(",")
    for path, name, state, _ in _tasks(folder):
        if name in names:
            print(f"{name}|{path.name}|{state}|None")
    return 0


def scancel(folder: Path, config: dict[str, Any], arguments: list[str]) -> int:
    for path, name, state, process in _tasks(folder):
        if name == _option(arguments, "--name") and state in ("PENDING", "RUNNING"):
            _put(path, name, "CANCELLED", process)
            if process:
                os.kill(process, signal.SIGKILL)
    return 0


def scontrol(folder: Path, config: dict[str, Any], arguments: list[str]) -> int:
    print(f"Configuration data as of now\nMaxArraySize            = {config['max_array_size']}\nMaxJobCount = 10000")
    return 0


def main() -> int:
    folder = Path(os.environ["FAKE_SLURM"])
    command, *arguments = sys.argv[1:]
    if command != "daemon":
        with (folder / "calls").open("a") as calls:
            calls.write(json.dumps([command, *arguments]) + "\n")
    config = json.loads((folder / "config.json").read_text())
    return int(globals()[command](folder, config, arguments))


if __name__ == "__main__":
    sys.exit(main())
