"""What a task leaves: a proven step in a folder, the error that ended it, or that there was no place for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from publish import errors
from publish.errors import HubError, PublishError, SlurmError, StorageError
from publish.hub.branchfile import BranchFile
from publish.hub.manifest import NAME, FileRecord, Manifest
from publish.run.lineage import sketch_of
from publish.run.step import ProvenStep

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
