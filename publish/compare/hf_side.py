"""A Hugging Face model as a side: safetensors or torch files, one or several with an index, whoever wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from publish.compare.layers import is_buffer
from publish.compare.side import Account, SideTensor
from publish.errors import SourceError
from publish.neox.inert import StoredTensor
from publish.neox.torchfile import TorchFile
from publish.source.files import CheckpointFiles
from publish.source.safetensors import read_places

CHUNK = 1 << 20  # bytes read at a time; a multiple of every element's size
_KINDS = (
    ("model.safetensors", re.compile(r"model-\d+-of-\d+\.safetensors")),
    ("pytorch_model.bin", re.compile(r"pytorch_model-\d+-of-\d+\.bin")),
)
_DTYPES: Mapping[str, str] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_MAX_JSON = 64 << 20


@dataclass(frozen=True, slots=True)
class _Place:
    tensor: SideTensor
    file: str
    offset: int
    nbytes: int


class HfSide:
    """See `publish.compare.side.Side`."""

    format = "hf"

    def __init__(self, files: CheckpointFiles, step: int | None) -> None:
        """Read every header.

        Raises:
            SourceError: no weights, or a file that is not what its header or index says.
            CheckpointError: a torch file that is broken, hostile or older than torch 1.6.
        """
        self._files, self._step = files, step
        self._places: dict[str, _Place] = {}
        for file in weight_files(files):
            for place in _READERS[file.rpartition(".")[2]](files, file):
                if place.tensor.name in self._places:
                    other = self._places[place.tensor.name].file
                    raise SourceError(f"{place.tensor.name} is in {other} too", f"{files.where}/{file}", _FIX)
                self._places[place.tensor.name] = place

    @property
    def where(self) -> str:
        return self._files.where

    @cached_property
    def tensors(self) -> dict[str, SideTensor]:
        return {name: place.tensor for name, place in self._places.items()}

    @cached_property
    def account(self) -> Account:
        config = _document(self._files, "config.json")
        record = _document(self._files, "publish.json").get("step")
        step = record if isinstance(record, int) else self._step
        return Account(step=step, config=config)

    def want(self, names: Iterable[str]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            place = self._places[name]
            ranges.setdefault(place.file, []).append((place.offset, place.nbytes))
        for file, wanted in ranges.items():
            self._files.want(file, wanted)

    def chunks(self, name: str) -> Iterator[memoryview]:
        place = self._places[name]
        file = self._files.open(place.file)
        for at in range(0, place.nbytes, CHUNK):
            yield memoryview(file.read(place.offset + at, min(CHUNK, place.nbytes - at)))

    def close(self) -> None:
        self._files.close()


def weight_files(files: CheckpointFiles) -> list[str]:
    """The weight files that ``from_pretrained`` would read, safetensors first.

    Raises:
        SourceError: there are none, or a file that the index names is absent.
    """
    for single, shard in _KINDS:
        if single in files.sizes:
            return [single]
        if shards := sorted(name for name in files.sizes if shard.fullmatch(name)):
            index = f"{single}.index.json"
            named = set(_document(files, index).get("weight_map", {}).values())
            if index in files.sizes and named != set(shards):
                odd = sorted(named.symmetric_difference(shards))
                raise SourceError(f"{odd[0]} is only in the index, or only in the folder", files.where, _FIX)
            return shards
    raise SourceError("no weights in Hugging Face's format here", files.where, "name a model's folder or revision")


def _safetensors(files: CheckpointFiles, name: str) -> Iterator[_Place]:
    for place in read_places(files.open(name)):
        if not is_buffer(place.name):
            dtype = _known(_DTYPES.get(place.dtype), place, f"{files.where}/{name}")
            yield _Place(SideTensor(place.name, dtype, place.shape), name, place.offset, place.nbytes)


def _torch(files: CheckpointFiles, name: str) -> Iterator[_Place]:
    """A torch archive that holds a flat dict of tensors, as ``pytorch_model.bin`` does; nothing in it is executed."""
    file = TorchFile.open(name, files.open(name))
    tree = file.tree if isinstance(file.tree, dict) else {}
    for key, stored in tree.items():
        if isinstance(stored, StoredTensor) and isinstance(key, str) and not is_buffer(key):
            tensor = file.tensor(key, stored)
            if not tensor.contiguous:
                raise SourceError(f"{key} is not contiguous", f"{files.where}/{name}", "save it as safetensors")
            dtype = _known(tensor.dtype if tensor.dtype in _DTYPES.values() else None, tensor, files.where)
            yield _Place(SideTensor(key, dtype, tensor.shape), name, tensor.offset, tensor.nbytes)


_READERS: Mapping[str, Callable[[CheckpointFiles, str], Iterator[_Place]]] = {
    "safetensors": _safetensors,
    "bin": _torch,
}
_FIX = "the files are of different models or incomplete; fetch them again"


def _known(dtype: str | None, tensor: Any, where: str) -> str:
    if dtype is None:
        raise SourceError(f"{tensor.name} is of {tensor.dtype}", where, f"{', '.join(_DTYPES.values())} are compared")
    return dtype


def _document(files: CheckpointFiles, name: str) -> dict[str, Any]:
    """A JSON object, empty where the file is absent."""
    if name not in files.sizes:
        return {}
    size = files.sizes[name]
    if size > _MAX_JSON:
        raise SourceError(f"{size:,} bytes of JSON", f"{files.where}/{name}", "check what the file is")
    try:
        found = json.loads(bytes(files.open(name).read(0, size)))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"no JSON: {error}", f"{files.where}/{name}", "fetch it again") from error
    return found if isinstance(found, dict) else {}
