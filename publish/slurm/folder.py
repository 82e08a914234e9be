"""The folder that driver and tasks share. Every change in it is one atomic step of the file system.

::

    job.json                what every task needs
    tokenizer/              the release's tokenizer
    batches/B.json          the arrays that were submitted: index -> step
    slots/N                a link to the task that holds slot N; there are as many as steps may lie here
    tasks/B-I/stepN/        a verified branch
    results/B-I.json        the result of task I of array B
    logs/B-I.log            its output

Only the driver removes anything, so what is there after a crash can be told apart from what is not.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from publish import __version__
from publish.atomic import write_atomic
from publish.convert.tokenizer import NONE
from publish.errors import SlurmError, StorageError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.lineage.sketch import from_document
from publish.locks import try_locked
from publish.records.codec import canonical, read_record
from publish.records.files import FileRecord
from publish.records.manifest import NAME, Manifest
from publish.release.job import Job, make_job
from publish.release.outcome import Failure
from publish.release.step import VerifiedBranch
from publish.release_file import Release
from publish.sources.runs import CheckpointRef

JOB_FILE = "job.json"
TOKENIZER = "tokenizer"
LOCK = "slurm.lock"
_TAIL = 2000  # bytes of a log that an error quotes


@dataclass(frozen=True, slots=True)
class JobFile:
    """``job.json``: the release, and what its steps are pinned to. It holds no credential.

    Two drivers with the same job file may take over each other's tasks. ``planned`` is the step whose plan the release
    has, ``plan`` that plan's digest, ``commits`` pin each step's source, ``tokenizer`` is a fingerprint.
    ``preupload``: tasks upload large files, since the target is on the Hub of their environment.
    """

    version: str
    python: str
    release: Release
    planned: int
    plan: str
    commits: Mapping[str, str | None]
    tokenizer: str | None
    verify_logits: str
    hub: str
    templates: Path | None
    preupload: bool

    @classmethod
    def of(cls, job: Job, *, preupload: bool) -> JobFile:
        """The job file of a release."""
        return cls(
            version=__version__,
            python=sys.executable,
            release=replace(job.release, schedule=job.steps, base=job.release.base.absolute()),
            planned=job.chosen[0],
            plan=job.plan.digest,
            commits={str(step): commit for step, commit in job.pins.items()},
            tokenizer=job.tokenizer.fingerprint() if job.tokenizer else None,
            verify_logits=job.verify_logits,
            hub=job.hub,
            templates=job.templates.absolute() if job.templates else None,
            preupload=preupload,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(self)

    def ref(self, job: Job, step: int) -> CheckpointRef:
        """The step's checkpoint, pinned to what it was when the release began."""
        return replace(job.run.steps[step], commit=self.commits[str(step)])

    def open(self, folder: Path, client: Client) -> Job:
        """The job again, in a task; the tokenizer's files are in ``folder``.

        Raises:
            SlurmError: it is not the driver's job: another version of this tool, or a source that changed.
            PublishError: the source cannot be read.
        """
        tokenizer = str(folder / TOKENIZER) if self.tokenizer else NONE
        job = make_job(self.release, steps=str(self.planned), tokenizer=tokenizer, client=client)
        if (__version__, job.plan.digest) != (self.version, self.plan):
            what = f"this node has another plan than the driver: publish {__version__}, plan {job.plan.digest[:12]}"
            fix = "use one installation on a file system that all nodes share, and run again"
            raise SlurmError(f"{what} instead of {self.version}, {self.plan[:12]}", job.run.where, fix)
        return replace(job, verify_logits=self.verify_logits, hub=self.hub, templates=self.templates)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one task: a verified branch in ``folder``, a failure, or neither where no slot was free.

    ``host`` says where the task ran.
    """

    step: int
    host: str
    folder: str = ""
    files: tuple[FileRecord, ...] = ()
    fingerprint: str = ""
    bytes_read: int = 0
    failure: Failure | None = None

    @classmethod
    def of(cls, branch: VerifiedBranch, host: str) -> Result:
        """The result of a verified branch. Its files that are in memory are written beside its weights.

        Raises:
            StorageError: the folder cannot be written.
        """
        for file in branch.files:
            if isinstance(file.content, bytes):
                try:
                    (branch.folder / file.path).write_bytes(file.content)
                except OSError as error:
                    raise StorageError(f"cannot write: {error.strerror}", branch.folder, "free some space") from error
        files = tuple(FileRecord(file.path, file.size, file.sha256) for file in branch.files)
        return cls(branch.step, host, str(branch.folder), files, branch.fingerprint, branch.bytes_read)

    def branch(self, repo: str) -> VerifiedBranch:
        """The branch as it was verified on its node.

        Raises:
            StorageError, HubError: its folder is gone, or does not hold what the task wrote.
        """
        folder = Path(self.folder)
        files = tuple(BranchFile(file.path, folder / file.path, file.size, file.sha256) for file in self.files)
        for file in files:
            file.check()
        manifest = Manifest.from_bytes((folder / NAME).read_bytes(), folder / NAME)
        sketch = from_document(manifest.sketch, manifest.branch)
        return VerifiedBranch(
            repo=repo,
            name=manifest.branch,
            step=self.step,
            folder=folder,
            files=files,
            manifest=manifest,
            fingerprint=self.fingerprint,
            sketch=sketch,
            bytes_read=self.bytes_read,
        )


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
    slots: int


class SharedFolder:
    """The folder, for a task as for the driver.

    Raises StorageError where it cannot be written; a task is told SlurmError where the driver has given it up.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self, job_file: JobFile, tokenizer: Mapping[str, bytes], script: str) -> None:
        """Fill an empty folder; ``job.json`` comes last and says that it is complete."""
        try:
            for name in ("batches", "slots", "tasks", "results", "logs", TOKENIZER):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            for name, content in tokenizer.items():
                (self.root / TOKENIZER / name).write_bytes(content)
            self.script.write_text(script)
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", self.root, "name another --work-dir") from error
        _write(self.root / JOB_FILE, job_file.to_bytes())

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.root / "task.sh"

    def is_of(self, job_file: JobFile) -> bool:
        """Whether the folder is complete and of this very job."""
        path = self.root / JOB_FILE
        return path.is_file() and path.read_bytes() == job_file.to_bytes()

    def job_file(self) -> JobFile:
        """The job."""
        return read_record(JobFile, _given(self.root / JOB_FILE), self.root / JOB_FILE)

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
            _write(path, canonical(batch))
        else:
            path.unlink(missing_ok=True)

    def settle(self, attempt: Attempt) -> None:
        """Remove all that a task left; its step is published, has failed, or is to be made by another task."""
        (self.root / "results" / f"{attempt}.json").unlink(missing_ok=True)
        shutil.rmtree(self.task(attempt), ignore_errors=True)
        for slot, owner in self.slots().items():
            if owner == attempt:
                (self.root / "slots" / slot).unlink(missing_ok=True)
        batch = self.batches().get(attempt.batch)
        if batch is None:
            return
        self.add(attempt.batch, Batch({i: s for i, s in batch.steps.items() if i != str(attempt.index)}, batch.slots))

    def take_slot(self, attempt: Attempt, slots: int) -> bool:
        """Take a slot, in a task. False: all are taken, so no step may be started now."""
        folder = self.task(attempt)
        for slot in range(slots):
            with suppress(FileExistsError):  # a link is made whole or not at all, on NFS too
                (self.root / "slots" / str(slot)).symlink_to(f"../tasks/{attempt}")
                folder.mkdir()
                return True
        return False

    def slots(self) -> dict[str, Attempt]:
        """Which task holds which slot."""
        return {path.name: Attempt.parse(path.readlink().name) for path in (self.root / "slots").iterdir()}

    def task(self, attempt: Attempt) -> Path:
        """The folder of a task that has a slot."""
        return self.root / "tasks" / str(attempt)

    def log(self, attempt: Attempt) -> Path:
        """A task's output."""
        return self.root / "logs" / f"{attempt}.log"

    def log_tail(self, attempt: Attempt) -> str:
        """The end of a task's output, on one line; empty where it wrote nothing."""
        try:
            return " ".join(self.log(attempt).read_bytes()[-_TAIL:].decode("utf-8", "replace").split())
        except FileNotFoundError:
            return ""

    def leave(self, attempt: Attempt, result: Result) -> None:
        """A task's result, there at once and whole."""
        _write(self.root / "results" / f"{attempt}.json", canonical(result))

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
        return self.results() | made | frozenset(self.slots().values()) | frozenset(listed)

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """One driver a work folder, on whatever node; a driver that died holds nothing.

    Raises:
        SlurmError: another one runs. StorageError: the file system has no locks, or cannot be written.
    """
    path = folder / LOCK
    with ExitStack() as held:
        try:
            lock = held.enter_context(try_locked(path))
            if lock is not None:
                lock.truncate(0)
                lock.write(f"{socket.gethostname()}, process {os.getpid()}")
                lock.flush()
        except OSError as error:
            raise StorageError(f"cannot lock: {error.strerror}", path, "name another --work-dir") from error
        if lock is None:
            fix = "wait for it, or end it: the same command, run again, takes its tasks over"
            raise SlurmError(f"another driver works here, on {path.read_text('utf-8')}", path, fix)
        yield


def _given(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "see that --work-dir is on a file system that all nodes share; if the release has ended, all is well"
        raise SlurmError(f"cannot read {path.name}: {error.strerror}", path, fix) from error


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content, durable=True)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", path, "free some space in the work folder") from error
