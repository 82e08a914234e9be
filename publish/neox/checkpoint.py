"""A raw checkpoint: its tensors by canonical name and rank, and the state it carries. No weight is read to open it.

Canonical names: ``embedding.weight``, ``layers.{i}.{as GPT-NeoX writes it}`` (i from 0), ``final_norm.*``,
``unembedding.weight``, the same for both layouts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.errors import CheckpointError
from publish.formats.torch_archive import PADDING, RawTensor, TorchFile
from publish.formats.unpickler import StoredTensor
from publish.neox.layout import Layout, canonical, find_layout, sequential_names
from publish.neox.state import TrainingState, read_state, saved_tensors
from publish.sources.files import CheckpointFiles, Checksum

_VIEW = {
    "bfloat16": "<u2",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "int64": "<i8",
    "uint8": "u1",
}


@dataclass(frozen=True)
class RawCheckpoint:
    """One checkpoint as GPT-NeoX saved it, opened but not read."""

    where: str
    files: CheckpointFiles
    layout: str
    tensor_parallel: int
    pipeline_parallel: int
    ranks: tuple[Mapping[str, RawTensor], ...]
    state: TrainingState

    @classmethod
    def open(cls, files: CheckpointFiles, *, weights: bool = True) -> RawCheckpoint:
        """Read the indices of the files that hold weights, and the training state.

        ``weights``: they will be read next, so a pipeline's layer files, all weights, may be fetched whole.

        Raises:
            CheckpointError: no checkpoint, files missing, broken or hostile.
        """
        layout = find_layout(files.sizes, files.where)
        main = TorchFile.open(layout.ranks[0], files.open(layout.ranks[0])) if layout.ranks else None
        if weights:
            if main is not None:
                files.prefetch(main.name, main.spans([*_module(main).values(), *saved_tensors(main.tree).values()]))
            for by_number in layout.layers:
                for name in by_number.values():
                    files.prefetch(name, [(0, files.sizes[name])])
        state = read_state(main, files.where)
        opener = _sequential if layout.name == "sequential" else _pipeline
        ranks = opener(files, layout, main, weights)
        names = set(ranks[0])
        for number, rank in enumerate(ranks):
            if odd := sorted(names ^ set(rank)):
                raise CheckpointError(
                    f"rank {number} and rank 0 differ in tensors: {', '.join(odd[:3])}",
                    files.where,
                    "fetch it again",
                )
        return cls(files.where, files, layout.name, layout.tensor_parallel, layout.pipeline_parallel, ranks, state)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors on all ranks."""
        return sum(tensor.nbytes for rank in self.ranks for tensor in rank.values())

    @property
    def fingerprint(self) -> str:
        """A digest of the weights by name, shape and the checksums in the index; equal weights have equal ones."""
        digest = hashlib.sha256()
        for number, rank in enumerate(self.ranks):
            for name, tensor in sorted(rank.items()):
                digest.update(f"{number} {name} {tensor.dtype} {tensor.shape} {tensor.crc}\n".encode())
        return digest.hexdigest()

    @property
    def dtype(self) -> str:
        """The dtype most bytes are of."""
        sizes: dict[str, int] = {}
        for tensor in self.ranks[0].values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype))

    def prefetch(self) -> None:
        """Say that all tensors will be read: from a Hub they are fetched now, in as few requests as that takes.

        Raises:
            SourceError: what came is not what the archives' checksums say.
        """
        by_file: dict[str, list[RawTensor]] = {}
        for rank in self.ranks:
            for tensor in rank.values():
                by_file.setdefault(tensor.file, []).append(tensor)
        for name, tensors in by_file.items():
            ranges = {(tensor.offset, tensor.span) for tensor in tensors}
            storages = {Checksum(tensor.storage_at, tensor.storage_bytes, tensor.crc) for tensor in tensors}
            ranges |= {(each.offset, each.length) for each in storages if _unread(each, ranges) <= PADDING}
            self.files.prefetch(name, sorted(ranges), sorted(storages, key=lambda each: each.offset))

    def read(self, tensor: RawTensor, start_row: int = 0, rows: int | None = None) -> NDArray[Any]:
        """Rows of ``tensor`` as a dense array; bfloat16 as the uint16 of its bits. No cast."""
        kind = np.dtype(_VIEW[tensor.dtype])
        shape, stride = tensor.shape, tensor.stride
        offset = tensor.offset
        if shape and (start_row or rows is not None):
            offset += start_row * stride[0] * tensor.itemsize
            shape = (shape[0] - start_row if rows is None else rows, *shape[1:])
        if 0 in shape:
            return np.empty(shape, kind)
        span = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        data = self.files.open(tensor.file).read(offset, span * tensor.itemsize)
        flat = np.frombuffer(data, kind)
        strided = np.lib.stride_tricks.as_strided(flat, shape, tuple(step * kind.itemsize for step in stride))
        return np.ascontiguousarray(strided).reshape(shape)

    def chunks(self, tensor: RawTensor, size: int) -> Iterator[memoryview]:
        """The bytes of a contiguous ``tensor`` in order, at most ``size`` at a time."""
        if not tensor.contiguous:
            raise ValueError(f"{tensor.name} is not contiguous")
        file = self.files.open(tensor.file)
        for at in range(0, tensor.nbytes, size):
            yield memoryview(file.read(tensor.offset + at, min(size, tensor.nbytes - at)))


def _unread(storage: Checksum, ranges: Collection[tuple[int, int]]) -> int:
    """Bytes of a storage that no range has; ranges do not overlap."""
    end = storage.offset + storage.length
    return storage.length - sum(length for offset, length in ranges if storage.offset <= offset < end)


def _module(file: TorchFile) -> dict[str, StoredTensor]:
    """The tensors of ``module``, where there are any."""
    module = file.tree.get("module") if isinstance(file.tree, dict) else None
    if not isinstance(module, dict):
        return {}
    return {name: each for name, each in module.items() if isinstance(each, StoredTensor)}


def _sequential(
    files: CheckpointFiles, layout: Layout, main: TorchFile | None, weights: bool
) -> tuple[Mapping[str, RawTensor], ...]:
    ranks = []
    for name in layout.ranks:
        file = main if main is not None and main.name == name else TorchFile.open(name, files.open(name))
        if weights and file is not main:
            files.prefetch(name, file.spans(_module(file).values()))
        module = file.tree.get("module") if isinstance(file.tree, dict) else None
        if not isinstance(module, dict):
            raise CheckpointError(
                "the file holds no weights ('module' is absent), and there are no layer files",
                f"{files.where}/{name}",
                "fetch the layer_* files of this checkpoint as well",
            )
        stored = _tensors(module, f"{files.where}/{name}")
        named = sequential_names(stored, f"{files.where}/{name}")
        ranks.append({clean: file.tensor(clean, stored[raw]) for raw, clean in named})
    return tuple(ranks)


def _pipeline(
    files: CheckpointFiles, layout: Layout, _main: TorchFile | None, _weights: bool
) -> tuple[Mapping[str, RawTensor], ...]:
    ranks = []
    for by_number in layout.layers:
        last = max(by_number)
        norm = last if last - 1 not in by_number else last - 1
        tensors: dict[str, RawTensor] = {}
        for number, name in sorted(by_number.items()):
            file = TorchFile.open(name, files.open(name))
            for local, stored in _tensors(file.tree, f"{files.where}/{name}").items():
                clean = canonical(number, local, norm, f"{files.where}/{name}")
                tensors[clean] = file.tensor(clean, stored)
        ranks.append(tensors)
    return tuple(ranks)


def _tensors(tree: object, where: str) -> dict[str, StoredTensor]:
    if not isinstance(tree, dict):
        raise CheckpointError("the file holds no named tensors", where, "fetch it again")
    tensors = {}
    for name, value in tree.items():
        if not isinstance(name, str):
            raise CheckpointError(f"a tensor named {name!r}", where, "fetch the file again")
        if isinstance(value, StoredTensor):
            tensors[name] = value
        elif not name.endswith("_extra_state"):  # TransformerEngine keeps None or bytes there
            raise CheckpointError(f"{name!r} is no tensor", where, "fetch the file again")
    return tensors
