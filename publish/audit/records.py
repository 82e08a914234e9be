"""What an audit sees and what it says: branches, suites, findings. Plain data: checks are pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from publish.formats.safetensors import Header
from publish.hub.reads import CommitRecord, TreeEntry
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Evidence
from publish.records.manifest import Manifest
from publish.release_file import Release
from publish.text import some

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Label:
    """What a branch's name says: a step, of a series (OLMo's ``stage1``; empty where there is only one)."""

    step: int
    series: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch at one commit. ``label`` is None for `main`.

    ``texts``: the small files that were read, by path. ``headers``: those of its safetensors files, by path.
    ``manifest``: its ``publish.json``, where it was read. ``history``: its newest commits, where they were asked for.
    """

    name: str
    commit: str
    label: Label | None
    files: Mapping[str, TreeEntry]
    texts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, Header] = field(default_factory=dict, repr=False)
    manifest: Manifest | None = None
    history: tuple[CommitRecord, ...] = ()

    @property
    def step(self) -> int:
        """The step that its name says; -1 for `main`."""
        return self.label.step if self.label else -1

    @property
    def series(self) -> str:
        return self.label.series if self.label else ""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Which steps there must be, and who says so; ``steps`` is None where nobody does."""

    steps: tuple[int, ...] | None
    source: str


@dataclass(frozen=True, slots=True)
class Suite:
    """A repo as it is published. ``steps`` are in the order of series and step; ``odd`` names look like steps."""

    repo: str
    main: Branch | None
    steps: tuple[Branch, ...]
    odd: tuple[str, ...]
    expectation: Expectation
    records: Mapping[str, CheckpointRecord] = field(default_factory=dict)
    release: Release | None = None
    declared: tuple[frozenset[int], ...] = ()  # steps whose weights are said to be equal

    @property
    def ours(self) -> bool:
        """Whether this tool published it."""
        return bool(self.records) or any(branch.manifest for branch in self.steps)

    @property
    def finals(self) -> tuple[Branch, ...]:
        """The last step of each series, as it must be, or as it is where nobody says; empty where it is missing."""
        last = max(self.expectation.steps) if self.expectation.steps else None
        ends = {branch.series: branch for branch in self.steps}  # in order: the last one stays
        return tuple(branch for branch in ends.values() if last is None or branch.step == last)

    @property
    def final(self) -> Branch | None:
        """The last step; None where it is missing, or where several series end and nothing tells which is meant."""
        return self.finals[0] if len(self.finals) == 1 else None


def evidence_of(branch: Branch, entry: TreeEntry | None = None, note: str = "") -> Evidence:
    """A branch's file as evidence; its git blob id stands for the digest of a file that is not in LFS."""
    if entry is None:
        return Evidence(branch.name, branch.commit, note=note)
    return Evidence(branch.name, branch.commit, entry.path, digest(entry), entry.size, note)


MEANINGS: Mapping[str, str] = {  # kind of a finding -> what it means for a user of the suite
    "duplicate-weights": "These revisions load the same model, so every figure computed on them is of one checkpoint.",
    "mixed-shards": "The model loads without a word and is none that was ever trained: its shards do not belong "
    "together.",
    "main-not-final": "Whoever loads the repo without a revision gets another model than the last checkpoint.",
    "missing-step": "The revision cannot be loaded, and studies across training have a hole there.",
    "unexpected-branch": "Scripts that go through the branches take it for a checkpoint of the schedule.",
    "no-safetensors": "The weights load only by unpickling, which newer transformers refuse and which can run code.",
    "size-mismatch": "The weights are incomplete: loading fails, or fills the missing tensors with zeros.",
    "config-mismatch": "The config builds another network than the weights are of: loading fails, or computes wrongly.",
    "inherited-files": "The branch shows files that are not of its step; a stale weight file is even loaded first.",
    "card-metadata": "The Hub cannot file the model: no license, no search, and a warning on its page.",
    "card-snippet": "Whoever copies the snippet loads another model than the page describes.",
    "card-stale": "The card describes something else than what is there.",
    "readme-in-lfs": "The Hub shows no card, because it does not render a README that is kept in LFS.",
    "not-as-recorded": "The branch was changed after its release, or is not what its name says; what was proven then "
    "no longer holds.",
}


def digest(entry: TreeEntry) -> str:
    """What tells the file's content: its LFS sha256, or the git blob id, which does so just as well."""
    return entry.lfs_sha256 or entry.oid


def steps_of(branches: Iterable[Branch]) -> tuple[int, ...]:
    """Their steps in order, each once; `main` has none."""
    return tuple(sorted({branch.step for branch in branches if branch.label}))


def named(branches: Iterable[Branch], most: int = 6) -> str:
    """``step1, step2 and 74 more``."""
    return some((branch.name for branch in branches), most)
