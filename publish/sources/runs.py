"""Training runs and single checkpoints, by location: a folder, or a Hub repo with an optional revision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publish.errors import SourceError
from publish.schedule import looks_like_a_step, step_of
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.remote import HubRepo

if TYPE_CHECKING:
    from publish.hub.client import Client


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


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """Which checkpoint: by ``commit`` on a Hub (a full id; None in a folder). ``step`` is None where ``name`` has none.

    ``location`` is the run's folder or repo, ``name`` the folder or branch in it. For one checkpoint that was named
    by itself, ``location`` is that folder or repo.
    """

    location: str
    name: str
    step: int | None
    commit: str | None = None


class TrainingRun:
    """All checkpoints of one training run: a folder of ``global_stepN/`` or ``stepN/``, or a repo with those branches.

    ``steps`` are in ascending order. On a Hub every branch is resolved to its commit once, when the run is opened.
    ``names`` are all branches or folders that are named like a step, those that cannot be parsed included.
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
                f"{steps[step].name} and {name} both claim step {step}", where, "keep one checkpoint a step"
            )
        steps[step] = CheckpointRef(where, name, step, commit)
    return dict(sorted(steps.items()))


def open_run(location: Location, client: Client | None = None) -> TrainingRun:
    """The run at ``location``; ``client`` reads what is on a Hub.

    Raises:
        SourceError: nothing there, no steps, or one step twice.
        HubError: the Hub refuses or cannot be reached.
    """
    if location.revision:
        raise SourceError(
            "a run is a repo with a branch per step, so it takes no revision",
            str(location),
            "drop the @revision",
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
        raise SourceError(f"no checkpoints here: {what}", run.where, fix)
    return run


def open_ref(
    location: Location, step: int | None, client: Client | None = None
) -> tuple[CheckpointRef, CheckpointFiles]:
    """One checkpoint: the folder or revision itself, or ``step`` of the run there.

    Raises:
        SourceError: no such checkpoint, or a run without a step named.
        HubError: the Hub refuses or cannot be reached.
    """
    single = _single(location, client) if step is None else None
    if single is not None:
        return single
    run = open_run(Location(location.folder, location.repo), client)
    if step is None:
        raise SourceError(f"{len(run.steps)} checkpoints are here and no step is named", str(location), "add --step N")
    if step not in run.steps:
        raise SourceError(f"there is no step {step}", run.where, f"the steps are {_brief(tuple(run.steps))}")
    return run.steps[step], run.open(run.steps[step])


def _single(location: Location, client: Client | None) -> tuple[CheckpointRef, CheckpointFiles] | None:
    if location.folder is not None:
        if not any(location.folder.glob("*.pt")):
            return None
        name = location.folder.resolve().name
        return CheckpointRef(str(location.folder), name, step_of(name)), LocalFiles(location.folder)
    if location.revision is None:
        return None
    assert location.repo is not None
    repo = HubRepo(location.repo, client)
    commit = repo.resolve(location.revision)
    ref = CheckpointRef(location.repo, location.revision, step_of(location.revision), commit)
    return ref, repo.files(commit, str(location))


def _brief(steps: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, steps[:6]))
    return f"{shown}, ..., {steps[-1]}" if len(steps) > 6 else shown
