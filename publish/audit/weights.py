"""Which files of a branch are its weights, as transformers looks for them: safetensors first, then ``.bin``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publish.audit.records import Branch, digest
from publish.formats.safetensors import ShardIndex, parse_index
from publish.hub.reads import TreeEntry

SAFETENSORS, BIN = "safetensors", "bin"


@dataclass(frozen=True, slots=True)
class Format:
    """File names of one format: the whole model in one file, the index of shards, the shards."""

    name: str
    single: str
    index: str
    shard: re.Pattern[str]


FORMATS = (
    Format(
        SAFETENSORS,
        "model.safetensors",
        "model.safetensors.index.json",
        re.compile(r"model-\d+-of-\d+\.safetensors"),
    ),
    Format(
        BIN,
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
    ),
)
INDICES = tuple(each.index for each in FORMATS)


@dataclass(frozen=True, slots=True)
class WeightSet:
    """The files of one format that a branch is loaded from. ``missing``: named by the index and not there."""

    format: str
    files: tuple[TreeEntry, ...]
    missing: tuple[str, ...] = ()
    index: ShardIndex | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """The digests of its files: equal for equal weights, whatever the files are called."""
        return tuple(sorted(digest(entry) for entry in self.files))


def weight_sets(branch: Branch) -> Mapping[str, WeightSet]:
    """The branch's weights by format; empty where it has none. An index that cannot be read counts as absent."""
    return {each.name: found for each in FORMATS if (found := _weight_set(branch, each))}


def loaded(branch: Branch) -> WeightSet | None:
    """What ``from_pretrained`` loads: safetensors where there are any."""
    sets = weight_sets(branch)
    return sets.get(SAFETENSORS) or sets.get(BIN)


def _weight_set(branch: Branch, names: Format) -> WeightSet | None:
    if names.single in branch.files:
        return WeightSet(names.name, (branch.files[names.single],))
    index = read_index(branch.texts.get(names.index, b""))
    if index is not None:
        wanted = sorted(set(index.files.values()))
        there = tuple(branch.files[path] for path in wanted if path in branch.files)
        return WeightSet(names.name, there, tuple(path for path in wanted if path not in branch.files), index)
    shards = tuple(entry for path, entry in branch.files.items() if names.shard.fullmatch(path))
    return WeightSet(names.name, shards) if shards else None


def read_index(content: bytes) -> ShardIndex | None:
    """The index in JSON bytes; None where they are none."""
    try:
        return parse_index(content)
    except ValueError:
        return None


def weight_paths(branch: Branch) -> Iterator[str]:
    """Every file that holds weights or says where they are, loaded or not."""
    for path in branch.files:
        if any(path in (each.single, each.index) or each.shard.fullmatch(path) for each in FORMATS):
            yield path
