"""A checkpoint in Hugging Face format: which files hold its weights, its tensors by name, and its config.

The weights are where ``from_pretrained`` looks for them, in its order (transformers ``modeling_utils.py``):
``model.safetensors``, its shards with an index, ``pytorch_model.bin``, its shards with an index. Opening reads headers,
pickles and JSON, and no weight; nothing in a pickle is executed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.dtypes import BY_SAFETENSORS
from publish.errors import CheckpointError
from publish.formats.dtypes import VIEWS
from publish.formats.safetensors import parse_index, read_header
from publish.formats.torch_archive import RawTensor, TorchFile
from publish.formats.unpickler import StoredTensor
from publish.sources.files import CheckpointFiles

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
CHUNK = 1 << 20  # bytes of one read; a multiple of every element's size

_SHARD = re.compile(r"(model|pytorch_model)-(\d+)-of-(\d+)\.(safetensors|bin)")
_MAX_JSON = 64 << 20
_MAX_SHARDS = 10_000
_FETCH_AGAIN = "the files are incomplete or belong to different models; fetch them again"


def has_weights(names: Collection[str]) -> bool:
    """Whether these names, relative to a folder, include weights that `HfCheckpoint` reads, or an index of such."""
    indices = {index_of(single) for single in SINGLE_FILES}
    return any(name in SINGLE_FILES or name in indices or _shard_of(name) for name in names)


def index_of(single: str) -> str:
    """The name of the index of the shards that replace the file ``single``."""
    return f"{single}.index.json"


def _shard_of(name: str) -> str | None:
    """The single file that the shard ``name`` is a part of; None if it is not a shard."""
    found = _SHARD.fullmatch(name)
    single = f"{found[1]}.{found[4]}" if found else None
    return single if single in SINGLE_FILES else None


@dataclass(frozen=True)
class HfCheckpoint:
    """An open checkpoint. ``tensors`` by name, in file order; all are contiguous and little endian."""

    files: CheckpointFiles
    tensors: Mapping[str, RawTensor]

    @classmethod
    def open(cls, files: CheckpointFiles) -> HfCheckpoint:
        """Read the index and the header of every weight file.

        Raises:
            CheckpointError: no weights; a file is absent, damaged, hostile or older than torch 1.6; a tensor is in two
                files or of a dtype that torch archives do not have.
        """
        tensors: dict[str, RawTensor] = {}
        for file in weight_files(files):
            read = _read_safetensors if file.endswith(".safetensors") else _read_torch
            for tensor in read(files, file):
                if tensor.name in tensors:
                    what = f"{tensor.name} is also in {tensors[tensor.name].file}"
                    raise CheckpointError(what, f"{files.where}/{file}", _FETCH_AGAIN)
                tensors[tensor.name] = tensor
        return cls(files, tensors)

    @property
    def where(self) -> str:
        return self.files.where

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``; empty if the file is absent.

        Raises:
            CheckpointError: not a JSON object.
        """
        return read_json(self.files, CONFIG)

    @cached_property
    def step(self) -> int | None:
        """The step that ``publish.json`` states, if there is such a file.

        Raises:
            CheckpointError: not a JSON object.
        """
        step = read_json(self.files, "publish.json").get("step")
        return step if isinstance(step, int) else None

    def prefetch(self, names: Iterable[str]) -> None:
        """Announce that these tensors are read next: from a Hub they come in as few requests as possible."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        for tensor in map(self.tensors.__getitem__, names):
            ranges.setdefault(tensor.file, []).append((tensor.offset, tensor.nbytes))
        for file, wanted in ranges.items():
            self.files.prefetch(file, wanted)

    def chunks(self, tensor: RawTensor) -> Iterator[memoryview]:
        """The bytes of a tensor in row-major order, whole elements, at most `CHUNK` bytes at a time."""
        file = self.files.open(tensor.file)
        for at in range(0, tensor.nbytes, CHUNK):
            yield memoryview(file.read(tensor.offset + at, min(CHUNK, tensor.nbytes - at)))

    def read(self, tensor: RawTensor, start_row: int, rows: int) -> NDArray[Any]:
        """``rows`` rows of a float16, bfloat16 or float32 tensor; bfloat16 as the uint16 of its bits."""
        row = tensor.nbytes // max(1, tensor.shape[0])
        data = self.files.open(tensor.file).read(tensor.offset + start_row * row, rows * row)
        return np.frombuffer(data, VIEWS[tensor.dtype]).reshape(rows, *tensor.shape[1:])


def weight_files(files: CheckpointFiles) -> list[str]:
    """The weight files that ``from_pretrained`` would read.

    Raises:
        CheckpointError: there are none, a shard is missing, or a shard does not belong to the others.
    """
    for single in SINGLE_FILES:
        if single in files.sizes:
            return [single]
        shards = {name for name in files.sizes if _shard_of(name) == single}
        index = index_of(single)
        expected = _indexed_files(files, index) if index in files.sizes else _numbered_files(shards)
        if unmatched := sorted(shards ^ expected):
            what = "is missing" if unmatched[0] in expected else "does not belong to the other shards"
            raise CheckpointError(f"{unmatched[0]} {what}", files.where, _FETCH_AGAIN)
        if shards:
            return sorted(shards)
    raise CheckpointError(
        f"no weights in Hugging Face format: expected {' or '.join(SINGLE_FILES)}, whole or in shards",
        files.where,
        "name a model's folder or revision",
    )


def _indexed_files(files: CheckpointFiles, index: str) -> set[str]:
    try:
        return set(parse_index(_read_small(files, index)).files.values())
    except ValueError as error:
        raise CheckpointError(f"the index cannot be read: {error}", f"{files.where}/{index}", _FETCH_AGAIN) from error


def _numbered_files(shards: Collection[str]) -> set[str]:
    """The names of all shards without an index: the name of a shard states how many there are."""
    found = _SHARD.fullmatch(min(shards, default=""))
    if found is None or int(found[3]) > _MAX_SHARDS:
        return set()
    numbers = range(1, int(found[3]) + 1)
    return {f"{found[1]}-{number:0{len(found[2])}}-of-{found[3]}.{found[4]}" for number in numbers}


def _read_safetensors(files: CheckpointFiles, name: str) -> Iterator[RawTensor]:
    file = files.open(name)
    for tensor in read_header(file).tensors:
        dtype = BY_SAFETENSORS.get(tensor.dtype)
        if dtype is None or dtype.name not in VIEWS:
            what = f"{tensor.name} has the unsupported dtype {tensor.dtype}"
            raise CheckpointError(what, file.where, f"save it with one of {', '.join(VIEWS)}")
        strides = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
        yield RawTensor(tensor.name, name, dtype.name, tensor.shape, strides, tensor.offset)


def _read_torch(files: CheckpointFiles, name: str) -> Iterator[RawTensor]:
    """The tensors of a dict that torch saved, as ``pytorch_model.bin`` is."""
    file = TorchFile.open(name, files.open(name))
    tree = file.tree if isinstance(file.tree, dict) else {}
    for key, stored in tree.items():
        if isinstance(key, str) and isinstance(stored, StoredTensor):
            tensor = file.tensor(key, stored)
            if not tensor.contiguous:
                raise CheckpointError(f"{key} is not contiguous", f"{files.where}/{name}", "save it as safetensors")
            yield tensor


def read_json(files: CheckpointFiles, name: str) -> dict[str, Any]:
    """The JSON object in a file; empty if the file is absent.

    Raises:
        CheckpointError: not a JSON object, or larger than 64 MiB.
    """
    if name not in files.sizes:
        return {}
    where = f"{files.where}/{name}"
    try:
        found = json.loads(_read_small(files, name))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not valid JSON: {error}", where, "fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError("not a JSON object", where, "fetch it again")
    return found


def _read_small(files: CheckpointFiles, name: str) -> bytes:
    size = files.sizes[name]
    if size > _MAX_JSON:
        what = f"{size:,} bytes are too many for a JSON file of a checkpoint"
        raise CheckpointError(what, f"{files.where}/{name}", "check the file")
    return bytes(files.open(name).read(0, size))
