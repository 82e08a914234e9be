"""The repos and folders that a release is made from, each asked once in a process what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from publish.errors import SourceError
from publish.schedule import looks_like_a_step, step_of
from publish.sources.commitreads import CommitKey, CommitReads
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.kept import KeptReads
from publish.sources.remote import HubFiles, HubReader

if TYPE_CHECKING:
    from publish.hub.client import Client


# A location as the command line takes it: a folder, or a Hub repo with an optional revision.


_REPO = re.compile(r"(?:hf://)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([^\s@]+))?")


@dataclass(frozen=True, slots=True)
class Location:
    """Either ``folder`` or ``repo`` (with ``revision`` where one was named)."""

    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return f"{self.repo}@{self.revision}" if self.revision else str(self.repo)


def parse_location(text: str, base: Path | None = None) -> Location:
    """``text`` as a folder (an existing one wins; relative to ``base``) or as ``owner/name[@revision]``.

    Raises:
        SourceError: neither.
    """
    if not text.startswith("hf://"):
        folder = (base or Path()) / Path(text).expanduser()
        if folder.is_dir():
            return Location(folder=folder)
        if folder.is_file():
            raise SourceError("this is a file, not a folder", text, "name the checkpoint's folder")
    found = _REPO.fullmatch(text)
    if found is None:
        raise SourceError(
            "neither an existing folder nor a repository",
            text,
            "name a folder, or owner/name with an optional @revision",
        )
    return Location(repo=found[1], revision=found[2])


# The raw checkpoints of a location: one per step, each pinned to what it was when it was first looked at.


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """Which checkpoint is meant, said once. ``commit`` is a full id on a Hub, and None in a folder."""

    location: str
    name: str
    step: int
    commit: str | None = None


class RunSource(Protocol):
    """All checkpoints of one training run."""

    @property
    def where(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Every branch or folder name that is a step's, or looks like one."""
        ...

    @property
    def steps(self) -> Mapping[int, CheckpointSource]: ...

    def open(self, checkpoint: CheckpointSource) -> CheckpointFiles: ...

    def open_index(self, checkpoint: CheckpointSource) -> CheckpointFiles:
        """For a reader of what is small; what was read of a commit before is not asked for again."""
        ...


class FolderRun:
    """A folder of ``global_stepN/`` or ``stepN/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entries = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.names = tuple(name for name in entries if step_of(name) is not None or looks_like_a_step(name))
        self.steps: Mapping[int, CheckpointSource] = _by_step(
            self.where, {name: None for name in entries if step_of(name) is not None}
        )
        if not self.steps:
            raise SourceError(
                "no checkpoints here: no folder named global_stepN or stepN",
                folder,
                "name the run's save folder",
            )

    @property
    def where(self) -> str:
        return str(self.folder)

    def open(self, checkpoint: CheckpointSource) -> CheckpointFiles:
        return LocalFiles(self.folder / checkpoint.name)

    def open_index(self, checkpoint: CheckpointSource) -> CheckpointFiles:
        return self.open(checkpoint)


class HubRun:
    """A Hub repo with a branch per step; every branch is resolved to its commit once, here."""

    def __init__(self, repo: str, client: Client | None = None, kept: KeptReads | None = None) -> None:
        from publish.sources.remote import HubReader

        self.repo = repo
        self._reader = HubReader(repo, client, kept)
        branches = self._reader.branches()
        self.names = tuple(sorted(name for name in branches if step_of(name) is not None or looks_like_a_step(name)))
        self.steps: Mapping[int, CheckpointSource] = _by_step(
            repo, {name: commit for name, commit in branches.items() if step_of(name) is not None}
        )
        if not self.steps:
            raise SourceError(
                "no checkpoints here: no branch named stepN", repo, "name a repo that has one branch per step"
            )

    @property
    def where(self) -> str:
        return self.repo

    def open(self, checkpoint: CheckpointSource) -> CheckpointFiles:
        return self._reader.files(*self._at(checkpoint))

    def open_index(self, checkpoint: CheckpointSource) -> CheckpointFiles:
        return self._reader.index(*self._at(checkpoint))

    def _at(self, checkpoint: CheckpointSource) -> tuple[str, str]:
        """The checkpoint's commit, and how errors name it."""
        if checkpoint.commit is None:
            raise ValueError("a checkpoint on a Hub has a commit")
        return checkpoint.commit, f"{self.repo}@{checkpoint.name}"


def _by_step(where: str, names: Mapping[str, str | None]) -> Mapping[int, CheckpointSource]:
    steps: dict[int, CheckpointSource] = {}
    for name, commit in names.items():
        step = step_of(name)
        assert step is not None
        if step in steps:
            raise SourceError(
                f"{steps[step].name} and {name} both claim step {step}", where, "keep one checkpoint a step"
            )
        steps[step] = CheckpointSource(where, name, step, commit)
    return dict(sorted(steps.items()))


def open_run(location: Location, client: Client | None = None, kept: KeptReads | None = None) -> RunSource:
    """The run at ``location``; ``client`` and ``kept`` are used where that is on a Hub.

    Raises:
        SourceError: nothing there, no steps, or one step twice.
        HubError: the Hub refuses or cannot be reached.
    """
    if location.folder is not None:
        return FolderRun(location.folder)
    assert location.repo is not None
    if location.revision:
        raise SourceError(
            "a run is a repo with a branch per step, so it takes no revision",
            str(location),
            "drop the @revision",
        )
    return HubRun(location.repo, client, kept)


def open_checkpoint(location: Location, step: int | None) -> tuple[CheckpointSource, CheckpointFiles]:
    """One checkpoint: the folder or revision itself, or ``step`` of the run there.

    Raises:
        SourceError: no such checkpoint, or a run without a step named.
        HubError: the Hub refuses or cannot be reached.
    """
    single = _single(location) if step is None else None
    if single is not None:
        return single
    run = open_run(Location(location.folder, location.repo))
    if step is None:
        raise SourceError(f"{len(run.steps)} checkpoints are here and no step is named", str(location), "add --step N")
    if step not in run.steps:
        raise SourceError(f"there is no step {step}", run.where, f"the steps are {_brief(tuple(run.steps))}")
    return run.steps[step], run.open(run.steps[step])


def _single(location: Location) -> tuple[CheckpointSource, CheckpointFiles] | None:
    if location.folder is not None:
        folder = location.folder.resolve()
        if any(folder.glob("*.pt")):
            return CheckpointSource(str(location.folder), folder.name, _claimed(folder.name)), LocalFiles(
                location.folder
            )
        return None
    if location.revision is None:
        return None
    from publish.sources.remote import HubReader

    assert location.repo is not None
    reader = HubReader(location.repo)
    commit = reader.resolve(location.revision)
    source = CheckpointSource(location.repo, location.revision, _claimed(location.revision), commit)
    return source, reader.files(commit, str(location))


def _claimed(name: str) -> int:
    """The step that a name claims; -1 where it claims none."""
    step = step_of(name)
    return -1 if step is None else step


def _brief(steps: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, steps[:6]))
    return f"{shown}, ..., {steps[-1]}" if len(steps) > 6 else shown


class Sources:
    """Runs and repos as they were when this process first asked; ``client`` reads what is on a Hub.

    Where a branch is, and whether this token may see it, is always asked. What was read of the commit it leads to, by
    this process or one that left it in ``kept``, is not read again.
    """

    def __init__(self, client: Client | None = None, kept: KeptReads | None = None) -> None:
        self._given = client
        self._kept = kept or KeptReads()
        self._runs: dict[Location, RunSource] = {}

    @cached_property
    def client(self) -> Client:
        from publish.hub.client import Client as WireClient

        return self._given or WireClient()

    def run(self, location: Location) -> RunSource:
        """The run at ``location``.

        Raises:
            SourceError, HubError: as :func:`publish.source.checkpoints.open_run` does.
        """
        if location not in self._runs:
            on_hub = location.folder is None
            self._runs[location] = open_run(location, self.client if on_hub else None, self._kept)
        return self._runs[location]

    def repo(self, name: str) -> HubReader:
        """A repo on the Hub."""
        return HubReader(name, self.client, self._kept)

    def confirm(self) -> None:
        """Read on the Hub what came from earlier processes: nothing is published on the word of a file here.

        Raises:
            SourceError: the Hub has something else; the file is gone. HubError: no access, no connection.
        """
        for key, reads in tuple(self._kept.recalled()):
            if not self._is_there(key, reads):
                self._kept.forget(key)
                raise SourceError(
                    "what an earlier run read of this commit is not what the Hub holds",
                    f"{key.repo}@{key.commit}",
                    "it is forgotten now: run the same command again",
                )
            reads.recalled = False

    def keep(self) -> None:
        """Leave what was read to later processes.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._kept.write()

    def _is_there(self, key: CommitKey, reads: CommitReads) -> bool:
        reader = HubReader(key.repo, self.client)
        if reader.tree(key.commit) != reads.entries:
            return False
        files = HubFiles(self.client, key.repo, key.commit, f"{key.repo}@{key.commit}", reads.entries)
        try:
            return all(
                bytes(files.open(piece.path).read(piece.offset, piece.length)) == content
                for piece, content in reads.pieces.items()
            )
        finally:
            files.close()
