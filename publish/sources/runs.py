"""Training runs by location: a folder with a checkpoint per step, or a Hub repo with a branch per step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publish.errors import SourceError
from publish.hub.client import Client
from publish.schedule import looks_like_a_step, step_of
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.remote import HubRepo

_REPO = re.compile(r"(?:hf://)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([^\s@]+))?")


@dataclass(frozen=True, slots=True)
class Location:
    """A ``folder``, or a ``repo`` with an optional ``revision``."""

    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return f"{self.repo}@{self.revision}" if self.revision else str(self.repo)


def parse_location(text: str, base: Path | None = None) -> Location:
    """The location that ``text`` names: an existing folder, relative to ``base``, or ``owner/name[@revision]``.

    Raises:
        SourceError: it names neither.
    """
    if not text.startswith("hf://"):
        folder = (base or Path()) / Path(text).expanduser()
        if folder.is_dir():
            return Location(folder=folder)
        if folder.is_file():
            raise SourceError("expected a folder, found a file", text, "name the checkpoint's folder")
    found = _REPO.fullmatch(text)
    if found is None:
        raise SourceError(
            "no folder of this name, and not the name of a repo",
            text,
            "name an existing folder, or owner/name with an optional @revision",
        )
    return Location(repo=found[1], revision=found[2])


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """Which checkpoint: the folder or branch ``name`` of a run at ``location``, or a checkpoint named by itself.

    ``step`` is the one that ``name`` states, if it states one. ``commit``: a full id on a Hub, None in a folder.
    """

    location: str
    name: str
    step: int | None
    commit: str | None = None


class TrainingRun:
    """The checkpoints of one training run: a folder of ``global_stepN/`` or ``stepN/``, or a repo with such branches.

    ``steps`` are in ascending order. ``names`` also has folders or branches that look like a step's and cannot be
    parsed. On a Hub, ``commits`` pins every branch to its commit when the run is opened.
    """

    def __init__(self, where: str, commits: Mapping[str, str | None], repo: HubRepo | None = None) -> None:
        self.where = where
        self.names = tuple(sorted(name for name in commits if step_of(name) is not None or looks_like_a_step(name)))
        self.steps: Mapping[int, CheckpointRef] = _by_step(where, commits)
        self._repo = repo

    @property
    def on_hub(self) -> bool:
        return self._repo is not None

    def open(self, ref: CheckpointRef) -> CheckpointFiles:
        """The files of one of this run's checkpoints."""
        if self._repo is None:
            return LocalFiles(Path(self.where) / ref.name)
        if ref.commit is None:
            raise ValueError("a checkpoint on a Hub has a commit")
        return self._repo.files(ref.commit, f"{self.where}@{ref.name}")


def _by_step(where: str, commits: Mapping[str, str | None]) -> Mapping[int, CheckpointRef]:
    steps: dict[int, CheckpointRef] = {}
    for name, commit in commits.items():
        step = step_of(name)
        if step is None:
            continue
        if step in steps:
            raise SourceError(
                f"{steps[step].name} and {name} are both step {step:,}", where, "keep one checkpoint per step"
            )
        steps[step] = CheckpointRef(where, name, step, commit)
    return dict(sorted(steps.items()))


def open_run(location: Location, client: Client | None = None) -> TrainingRun:
    """The run at ``location``, on a Hub read by ``client``.

    Raises:
        SourceError: there is nothing, no step, or a step twice.
        HubError: the Hub refuses or cannot be reached.
    """
    if location.revision:
        raise SourceError(
            "expected a run, which is a repo with a branch per step, not a revision",
            str(location),
            "remove the @revision",
        )
    if location.folder is not None:
        folders = {path.name: None for path in sorted(location.folder.iterdir()) if path.is_dir()}
        run = TrainingRun(str(location.folder), folders)
        what, fix = "no folder named global_stepN or stepN", "name the run's save folder"
    else:
        assert location.repo is not None
        repo = HubRepo(location.repo, client)
        run = TrainingRun(location.repo, repo.branches(), repo)
        what, fix = "no branch named stepN", "name a repo that has one branch per step"
    if not run.steps:
        raise SourceError(f"no checkpoints found: {what}", run.where, fix)
    return run
