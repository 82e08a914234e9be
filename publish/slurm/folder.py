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
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from publish import __version__, errors
from publish.convert.tokenizer import NONE
from publish.errors import HubError, PublishError, SlurmError, StorageError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.failures import Endpoint
from publish.records.codec import canonical, read_record
from publish.records.files import FileRecord
from publish.records.manifest import NAME, Manifest
from publish.release.job import Job, Wishes, make_job
from publish.release.lineage import sketch_of
from publish.release.making import Making
from publish.release.step import ProvenStep
from publish.release_file import CardText, ExpectedEqual, ExpectedJump, Override, Release, WantedComparison
from publish.sources.runs import CheckpointRef

# The job as every task needs it: ``job.json`` in the work folder. It holds no credential.


JOB_FILE = "job.json"
TOKENIZER = "tokenizer"


@dataclass(frozen=True, slots=True)
class JobDescription:
    """All that makes a step what it is. Two drivers of one description may take over each other's tasks.

    ``planned``: the step whose plan the release has, and ``plan`` that plan's digest. ``commits``: what pins each
    step's source. ``ahead``: tasks upload large files, since the target is on the Hub of their environment.
    """

    version: str
    python: str
    source: str
    base: str
    target: str
    card: CardText
    steps: tuple[int, ...]
    planned: int
    plan: str
    commits: Mapping[str, str | None]
    tokenizer: str | None
    dtype: str | None
    overrides: tuple[Override, ...]
    expect: tuple[ExpectedEqual, ...]
    jumps: tuple[ExpectedJump, ...]
    compare: tuple[WantedComparison, ...]
    where: str
    hub: str
    templates: str | None
    logits: str
    ahead: bool

    @classmethod
    def of(cls, making: Making) -> JobDescription:
        """The description of a release under way."""
        job, release = making.job, making.job.release
        expected = making.expected
        return cls(
            version=__version__,
            python=sys.executable,
            source=release.source,
            base=str(release.base.absolute()),
            target=release.target,
            card=release.card,
            steps=job.steps,
            planned=job.chosen[0],
            plan=job.plan.digest,
            commits={str(step): each.source_commit for step, each in expected.items()},
            tokenizer=making.tokenizer,
            dtype=release.dtype,
            overrides=release.overrides,
            expect=release.expect,
            jumps=release.jumps,
            compare=release.compare,
            where=release.where,
            hub=job.hub,
            templates=str(job.templates.absolute()) if job.templates else None,
            logits=making.logits,
            ahead=making.client.endpoint.url == Endpoint.from_environment().url,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(self)

    def source_of(self, job: Job, step: int) -> CheckpointRef:
        """The step's checkpoint, pinned to what it was when the release began."""
        return replace(job.run.steps[step], commit=self.commits[str(step)])

    def open(self, folder: Path, client: Client) -> Job:
        """The job again, in a task; the tokenizer's files are in ``folder``.

        Raises:
            SlurmError: it is not the driver's job: another version of the tool, or a source that changed.
            PublishError: as :func:`publish.run.job.make_job` does.
        """
        release = Release(
            source=self.source,
            target=self.target,
            card=self.card,
            schedule=self.steps,
            dtype=self.dtype,
            overrides=self.overrides,
            expect=self.expect,
            jumps=self.jumps,
            compare=self.compare,
            where=self.where,
            base=Path(self.base),
        )
        tokenizer = str(folder / TOKENIZER) if self.tokenizer else NONE
        job = make_job(release, Wishes(str(self.planned), tokenizer), client)
        if (__version__, job.plan.digest) != (self.version, self.plan):
            what = f"this node plans otherwise than the driver: publish {__version__}, plan {job.plan.digest[:12]}"
            fix = "use one installation on a file system that all nodes share, and run again"
            raise SlurmError(f"{what} for {self.version}, {self.plan[:12]}", job.run.where, fix)
        return replace(job, hub=self.hub, templates=Path(self.templates) if self.templates else None)


# What a task leaves: a proven step in a folder, the error that ended it, or that there was no place for it.


Outcome = Literal["proven", "failed", "no-place"]


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """A :class:`PublishError`: its class in :mod:`publish.errors`, and its words."""

    kind: str
    what: str
    where: str
    fix: str

    @classmethod
    def of(cls, error: PublishError) -> ErrorRecord:
        """The record; an error of a class that is not in the one tree counts as its nearest kind there."""
        kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
        return cls(kind, error.what, error.where, error.fix)

    def error(self) -> PublishError:
        """The error again."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, PublishError):
            return kind(self.what, self.where, self.fix)
        return SlurmError(self.what, self.where, self.fix)


@dataclass(frozen=True, slots=True)
class Result:
    """One attempt at one step. ``folder`` and ``files`` are those of a proven one, ``host`` says where it ran."""

    step: int
    outcome: str
    host: str = ""
    folder: str = ""
    files: tuple[FileRecord, ...] = ()
    fingerprint: str = ""
    bytes_read: int = 0
    error: ErrorRecord | None = None

    @classmethod
    def of(cls, proven: ProvenStep, host: str) -> Result:
        """The result of a proven step; what it holds in memory is written beside its weights.

        Raises:
            StorageError: the folder cannot be written.
        """
        for file in proven.files:
            if isinstance(file.content, bytes):
                try:
                    (proven.folder / file.path).write_bytes(file.content)
                except OSError as error:
                    raise StorageError(f"cannot write: {error.strerror}", proven.folder, "free some space") from error
        files = tuple(FileRecord(file.path, file.size, file.sha256) for file in proven.files)
        folder = str(proven.folder)
        return cls(proven.step, "proven", host, folder, files, proven.fingerprint, proven.bytes_read)

    def proven(self) -> ProvenStep:
        """The step as it was proven on its node.

        Raises:
            StorageError, HubError: its folder is gone, or does not hold what the task wrote.
        """
        folder = Path(self.folder)
        files = tuple(BranchFile(each.path, folder / each.path, each.size, each.sha256) for each in self.files)
        for file in files:
            file.check()
        manifest = Manifest.from_bytes((folder / NAME).read_bytes(), folder / NAME)
        sketch = sketch_of(manifest)
        if sketch is None:
            raise HubError("the manifest keeps no sketch of the weights", folder / NAME, "make the step again")
        return ProvenStep(self.step, folder, files, manifest, self.fingerprint, sketch, self.bytes_read)


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
        _replace(self.root / JOB_FILE, description.to_bytes())

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.root / "task.sh"

    def is_of(self, description: JobDescription) -> bool:
        """Whether the folder is complete and of this very job."""
        path = self.root / JOB_FILE
        return path.is_file() and path.read_bytes() == description.to_bytes()

    def description(self) -> JobDescription:
        """The job."""
        return read_record(JobDescription, _given(self.root / JOB_FILE), self.root / JOB_FILE)

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
