"""The folder that driver and tasks share. Every change in it is one atomic step of the file system.

::

    job.json                what every task needs
    tokenizer/              the release's tokenizer
    batches/B.json          the arrays that were submitted: index -> step
    places/N                a link to the task that holds place N; as many as steps may lie here
    tasks/B-I/stepN/        a proven step
    results/B-I.json        what became of task I of array B
    logs/B-I.log            its output

Only the driver removes anything, so what is there after a crash can be told apart from what is not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from publish.errors import SlurmError, StorageError
from publish.hub.records import canonical, read_record
from publish.slurm.description import NAME, TOKENIZER, JobDescription
from publish.slurm.result import Result

LOCK = "slurm.lock"
_TAIL = 2000  # bytes of a log that an error quotes


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task: the array's name in this folder, and its index in it."""

    batch: str
    index: int

    def __str__(self) -> str:
        return f"{self.batch}-{self.index}"

    @classmethod
    def parse(cls, name: str) -> Attempt:
        """From a file's name."""
        batch, _, index = name.rpartition("-")
        return cls(batch, int(index))


@dataclass(frozen=True, slots=True)
class Batch:
    """An array: index -> step of the tasks that are not settled yet, and how many steps may lie in the folder."""

    steps: Mapping[str, int]
    places: int


class SharedFolder:
    """The folder, for a task as for the driver.

    Raises StorageError where it cannot be written; a task is told SlurmError where the driver has given it up.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self, description: JobDescription, tokenizer: Mapping[str, bytes], script: str) -> None:
        """Fill an empty folder; ``job.json`` comes last and says that it is complete."""
        try:
            for name in ("batches", "places", "tasks", "results", "logs", TOKENIZER):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            for name, content in tokenizer.items():
                (self.root / TOKENIZER / name).write_bytes(content)
            self.script.write_text(script)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", self.root, "name another --work-dir") from error
        _replace(self.root / NAME, description.to_bytes())

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.root / "task.sh"

    def is_of(self, description: JobDescription) -> bool:
        """Whether the folder is complete and of this very job."""
        path = self.root / NAME
        return path.is_file() and path.read_bytes() == description.to_bytes()

    def description(self) -> JobDescription:
        """The job."""
        return read_record(JobDescription, _given(self.root / NAME), self.root / NAME)

    def batch(self, name: str) -> Batch:
        """An array."""
        path = self.root / "batches" / f"{name}.json"
        return read_record(Batch, _given(path), path)

    def batches(self) -> dict[str, Batch]:
        """All arrays that have unsettled tasks."""
        return {path.stem: self.batch(path.stem) for path in (self.root / "batches").glob("*.json")}

    def add(self, name: str, batch: Batch) -> None:
        """Note an array, before it is submitted or with fewer tasks unsettled; an empty one goes."""
        path = self.root / "batches" / f"{name}.json"
        if batch.steps:
            _replace(path, canonical(batch))
        else:
            path.unlink(missing_ok=True)

    def settle(self, attempt: Attempt) -> None:
        """Remove all that a task left; its step is published, has failed, or is to be made by another task."""
        (self.root / "results" / f"{attempt}.json").unlink(missing_ok=True)
        shutil.rmtree(self.task(attempt), ignore_errors=True)
        for place, owner in self.places().items():
            if owner == attempt:
                (self.root / "places" / place).unlink(missing_ok=True)
        batch = self.batches().get(attempt.batch)
        if batch is None:
            return
        self.add(attempt.batch, Batch({i: s for i, s in batch.steps.items() if i != str(attempt.index)}, batch.places))

    def take_place(self, attempt: Attempt, places: int) -> bool:
        """Take one of the places, in a task; False: all are held, so that no step may be started now."""
        folder = self.task(attempt)
        for place in range(places):
            with suppress(FileExistsError):  # a link is made whole or not at all, on NFS too
                (self.root / "places" / str(place)).symlink_to(f"../tasks/{attempt}")
                folder.mkdir()
                return True
        return False

    def places(self) -> dict[str, Attempt]:
        """Which task holds which place."""
        return {path.name: Attempt.parse(path.readlink().name) for path in (self.root / "places").iterdir()}

    def task(self, attempt: Attempt) -> Path:
        """The folder of a task that has a place."""
        return self.root / "tasks" / str(attempt)

    def log(self, attempt: Attempt) -> Path:
        """A task's output."""
        return self.root / "logs" / f"{attempt}.log"

    def last_words(self, attempt: Attempt) -> str:
        """The end of a task's output, on one line; empty where it wrote nothing."""
        try:
            return " ".join(self.log(attempt).read_bytes()[-_TAIL:].decode("utf-8", "replace").split())
        except FileNotFoundError:
            return ""

    def leave(self, attempt: Attempt, result: Result) -> None:
        """A task's result, there at once and whole."""
        _replace(self.root / "results" / f"{attempt}.json", canonical(result))

    def results(self) -> frozenset[Attempt]:
        """The tasks whose result is there."""
        return frozenset(Attempt.parse(path.stem) for path in (self.root / "results").glob("*.json"))

    def result(self, attempt: Attempt) -> Result:
        """A task's result.

        Raises:
            HubError: it is not one.
        """
        path = self.root / "results" / f"{attempt}.json"
        return read_record(Result, path.read_bytes(), path)

    def attempts(self) -> frozenset[Attempt]:
        """Every task that is named anywhere in the folder."""
        made = frozenset(Attempt.parse(path.name) for path in (self.root / "tasks").iterdir())
        listed = (Attempt(name, int(index)) for name, batch in self.batches().items() for index in batch.steps)
        return self.results() | made | frozenset(self.places().values()) | frozenset(listed)

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One driver a work folder, on whatever node; a driver that died holds nothing.

    Raises:
        SlurmError: another one runs. StorageError: the file system has no locks, or cannot be written.
    """
    path = place / LOCK
    with ExitStack() as held:
        try:
            file = held.enter_context(path.open("a+", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"{socket.gethostname()}, process {os.getpid()}")
            file.flush()
        except BlockingIOError as error:
            fix = "wait for it, or end it: the same command, run again, takes its tasks over"
            raise SlurmError(f"another driver works here, on {path.read_text('utf-8')}", path, fix) from error
        except OSError as error:
            raise StorageError(f"cannot lock: {error.strerror}", path, "name another --work-dir") from error
        yield


def _given(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "see that --work-dir is on a file system that all nodes share; if the release has ended, all is well"
        raise SlurmError(f"cannot read {path.name}: {error.strerror}", path, fix) from error


def _replace(path: Path, content: bytes) -> None:
    """Write ``path`` so that it is there whole or not at all, also for other nodes and after a power cut."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", path, "free some space in the work folder") from error
