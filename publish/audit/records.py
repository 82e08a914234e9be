"""What an audit reads of a suite, as plain values. Every check is a pure function of these."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from publish.audit.names import Label, Names
from publish.formats.safetensors import Header, ShardIndex, parse_index
from publish.hub.reads import CommitRecord, TreeEntry
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Evidence, Finding
from publish.records.manifest import Manifest
from publish.release_file import Release
from publish.text import some

README, CONFIG, GITATTRIBUTES = "README.md", "config.json", ".gitattributes"
HF = "hf"  # the format of a suite: Hugging Face checkpoints
OTHER_WEIGHTS = (".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".pt", ".pth", ".ckpt")  # of other libraries


Series = tuple[str, str]  # the stage and the seed of a step
Explained = frozenset[tuple[str, str]]  # (branch, path); an empty path stands for the whole branch


def explained_by(findings: Iterable[Finding]) -> Explained:
    """What ``findings`` are about, so that a later check can leave it out."""
    return frozenset((item.branch, item.path) for finding in findings for item in finding.evidence)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """The file names that transformers looks for: the whole model in one file, or an index and its shards."""

    name: str
    single: str
    index: str
    shard: re.Pattern[str]


SAFETENSORS, BIN = "safetensors", "bin"
WEIGHT_FORMATS = (
    WeightFormat(
        SAFETENSORS,
        "model.safetensors",
        "model.safetensors.index.json",
        re.compile(r"model-\d+-of-\d+\.safetensors"),
    ),
    WeightFormat(
        BIN,
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
    ),
)


@dataclass(frozen=True, slots=True)
class WeightSet:
    """The files of one format that a branch is loaded from. ``missing``: files that only the index names."""

    format: str
    files: tuple[TreeEntry, ...]
    missing: tuple[str, ...] = ()
    index: ShardIndex | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """The digests of its files: equal for equal weight files, whatever their names."""
        return tuple(sorted(digest(entry) for entry in self.files))


@dataclass(frozen=True, eq=False)
class Branch:
    """A branch at one commit. ``label`` is None for ``main``.

    ``contents``: the small files that were read, by path. ``headers``: those of its safetensors files, by path.
    ``manifest``: its ``publish.json``, where it was read. ``history``: its newest commits, where they were asked for.
    """

    name: str
    commit: str
    label: Label | None
    files: Mapping[str, TreeEntry]
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, Header] = field(default_factory=dict, repr=False)
    manifest: Manifest | None = None
    history: tuple[CommitRecord, ...] = ()

    @property
    def step(self) -> int | None:
        """The position in training that its name states, on the suite's axis; None for ``main``."""
        return self.label.position if self.label else None

    @property
    def series(self) -> Series:
        """The stage and the seed that its name states: steps are compared within one series."""
        return (self.label.stage, self.label.seed) if self.label else ("", "")

    @cached_property
    def weights(self) -> Mapping[str, WeightSet]:
        """Its weights by format; an index that cannot be read counts as absent."""
        sets = ((kind.name, self._weight_set(kind)) for kind in WEIGHT_FORMATS)
        return {name: found for name, found in sets if found is not None}

    @property
    def safetensors(self) -> WeightSet | None:
        return self.weights.get(SAFETENSORS)

    @property
    def other_weights(self) -> tuple[str, ...]:
        """Its weight files that transformers does not load."""
        return tuple(path for path in self.files if path.endswith(OTHER_WEIGHTS))

    @property
    def has_weights(self) -> bool:
        """Whether it holds a model in any format, of any library."""
        return bool(self.weights or self.other_weights)

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        """Its ``config.json``; None where it is absent or not a JSON object."""
        try:
            config = json.loads(self.contents.get(CONFIG, b""))
        except (ValueError, RecursionError):
            return None
        return config if isinstance(config, dict) else None

    @property
    def card(self) -> str:
        """Its ``README.md``; empty where there is none."""
        return self.contents.get(README, b"").decode("utf-8", errors="replace")

    def evidence(self, path: str = "", note: str = "") -> Evidence:
        """The file at ``path``, which may be absent, or the branch itself."""
        entry = self.files.get(path)
        if entry is None:
            return Evidence(self.name, self.commit, path, note=note)
        return Evidence(self.name, self.commit, path, digest(entry), entry.size, note)

    def weight_evidence(self, *formats: str) -> tuple[Evidence, ...]:
        """The weight files of these formats; of all where none is named."""
        sets = [found for name, found in self.weights.items() if not formats or name in formats]
        return tuple(self.evidence(entry.path) for found in sets for entry in found.files)

    def _weight_set(self, kind: WeightFormat) -> WeightSet | None:
        if kind.single in self.files:
            return WeightSet(kind.name, (self.files[kind.single],))
        if index := _read_index(self.contents.get(kind.index, b"")):
            named = sorted(set(index.files.values()))
            present = tuple(self.files[path] for path in named if path in self.files)
            return WeightSet(kind.name, present, tuple(path for path in named if path not in self.files), index)
        shards = tuple(entry for path, entry in self.files.items() if kind.shard.fullmatch(path))
        return WeightSet(kind.name, shards) if shards else None


@dataclass(frozen=True, slots=True)
class ExpectedSteps:
    """The steps that a suite should have, and who says so; ``steps`` is None where nobody does."""

    steps: tuple[int, ...] | None
    source: str


@dataclass(frozen=True, eq=False)
class Suite:
    """A repo as it is published. ``steps`` are the branches of steps, ordered by series and step.

    ``names``: what the names of its branches state. ``recorded``: what ``checkpoints.json`` on ``main`` lists, by
    branch. ``declared_equal``: sets of steps that are meant to have the same weights. ``release``: the release file of
    this repo, where it was given.
    """

    repo: str
    main: Branch | None
    steps: tuple[Branch, ...]
    names: Names
    expected: ExpectedSteps
    recorded: Mapping[str, CheckpointRecord] = field(default_factory=dict)
    release: Release | None = None
    declared_equal: tuple[frozenset[int], ...] = ()
    format: str = HF

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All steps, then ``main``."""
        return (*self.steps, *((self.main,) if self.main else ()))

    @property
    def has_records(self) -> bool:
        """Whether this tool published it."""
        return bool(self.recorded) or any(branch.manifest for branch in self.steps)

    @property
    def last_steps(self) -> tuple[Branch, ...]:
        """The last expected step of each series; the last one present where nothing says which are expected."""
        last = max(self.expected.steps) if self.expected.steps else None
        ends = {branch.series: branch for branch in self.steps}  # in order, so the last one of each series stays
        return tuple(branch for branch in ends.values() if last is None or branch.step == last)

    @property
    def last_step(self) -> Branch | None:
        """The last step; None where it is missing, or where several series end."""
        return self.last_steps[0] if len(self.last_steps) == 1 else None

    def finding(self, kind: str, branches: Iterable[Branch], detail: str, evidence: Iterable[Evidence] = ()) -> Finding:
        """A finding about ``branches`` of this suite."""
        concerned = tuple(branches)
        return Finding(kind, names_of(concerned), steps_of(concerned), detail, self.repo, tuple(evidence))


def digest(entry: TreeEntry) -> str:
    """What identifies the content of a file: its LFS SHA-256, or the git blob id where it is not in LFS."""
    return entry.lfs_sha256 or entry.oid


def _read_index(content: bytes) -> ShardIndex | None:
    try:
        return parse_index(content)
    except ValueError:
        return None


def names_of(branches: Iterable[Branch]) -> tuple[str, ...]:
    """Their names, each once."""
    return tuple(dict.fromkeys(branch.name for branch in branches))


def steps_of(branches: Iterable[Branch]) -> tuple[int, ...]:
    """Their steps in order, each once; ``main`` has none."""
    return tuple(sorted({branch.step for branch in branches if branch.step is not None}))


def shorten(branches: Iterable[Branch]) -> str:
    """``step1, step2 and 74 more``, for a sentence."""
    return some((branch.name for branch in branches), 6)
