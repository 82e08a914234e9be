"""A raw checkpoint: its files, its tensors by canonical name and rank, and the training state it carries.

GPT-NeoX writes one of two layouts, told apart by file names. Sequential (``pipe-parallel-size: 0``): all weights in
``mp_rank_XX_model_states.pt``. Pipeline (1 or more): ``layer_NN-model_XX-model_states.pt``, and ``mp_rank_*`` files
without weights, as many as PP x TP. Layer files start at 02: 00 is the embedding, 01 and L+2 are functions without
weights, L+3 is the final norm, L+4 the unembedding.

Canonical names are the same for both: ``embedding.weight``, ``layers.{i}.{as GPT-NeoX writes it}`` (i from 0),
``final_norm.*``, ``unembedding.weight``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publish.errors import CheckpointError
from publish.formats.torch_archive import PADDING, RawTensor, TorchFile
from publish.formats.unpickler import StoredTensor
from publish.neox.state import RandomState, TrainingState, decode, read_state, saved_tensors
from publish.sources.files import CheckpointFiles, Checksum
from publish.text import some

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYER_FILE = re.compile(r"layer_([0-9]{2,5})-model_([0-9]{2,4})-model_states\.pt")
_RANK_FILE = re.compile(r"mp_rank_([0-9]{2,5})_model_states\.pt")
_SEQUENTIAL_NAME = re.compile(r"sequential\.([0-9]{1,5})\.(.+)")
_MAX_LAYERS = 10_000  # more than any model has
_FETCH_AGAIN = "fetch the files again"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files hold what: ``ranks`` are the ``mp_rank_*`` files, ``layers[rank][number]`` those of a pipeline."""

    tensor_parallel: int
    ranks: tuple[str, ...]
    layers: tuple[Mapping[int, str], ...]

    @property
    def name(self) -> str:
        """``sequential`` or ``pipeline``."""
        return "pipeline" if self.layers else "sequential"

    @property
    def pipeline_parallel(self) -> int:
        """Pipeline stages; 0 for the sequential layout, as GPT-NeoX counts."""
        return max(1, len(self.ranks) // self.tensor_parallel) if self.layers else 0


def is_checkpoint(names: Collection[str]) -> bool:
    """Whether these file names are those of a raw checkpoint."""
    return any(_LAYER_FILE.fullmatch(name) or _RANK_FILE.fullmatch(name) for name in names)


def find_layout(names: Collection[str], where: str) -> Layout:
    """The layout that the file names show.

    Raises:
        CheckpointError: they are not those of a checkpoint, or files are missing.
    """
    ranks = {int(found[1]): name for name in names if (found := _RANK_FILE.fullmatch(name))}
    layers: dict[int, dict[int, str]] = {}
    for name in names:
        if found := _LAYER_FILE.fullmatch(name):
            layers.setdefault(int(found[2]), {})[int(found[1])] = name
    if not ranks and not layers:
        raise CheckpointError(
            "no GPT-NeoX checkpoint found: expected mp_rank_*_model_states.pt or layer_*-model_*-model_states.pt",
            where,
            "name a folder or a revision that GPT-NeoX's save_checkpoint wrote",
        )
    _check_complete(ranks, "mp_rank", where)
    _check_complete(layers, "tensor-parallel rank", where)
    in_order = tuple(ranks[rank] for rank in sorted(ranks))
    if not layers:
        return Layout(len(ranks), in_order, ())
    _check_layers(layers, where)
    return Layout(len(layers), in_order, tuple(layers[rank] for rank in sorted(layers)))


def _check_complete(found: Mapping[int, object], kind: str, where: str) -> None:
    if missing := sorted(set(range(max(found, default=-1) + 1)) - set(found)):
        raise CheckpointError(f"files of {kind} {some(missing, 8)} are missing", where, "fetch the missing files")


def _check_layers(layers: Mapping[int, Mapping[int, str]], where: str) -> None:
    everywhere = set().union(*layers.values())
    for rank, files in layers.items():
        if missing := sorted(everywhere - set(files)):
            what = f"layer file {missing[0]:02} of rank {rank:02} is missing"
            raise CheckpointError(what, where, "fetch the missing file")
    numbers = sorted(everywhere)
    if numbers[0] != 0 or numbers[-1] > _MAX_LAYERS:
        raise CheckpointError("the embedding's file layer_00 is missing", where, "fetch the missing file")
    gaps = [number for number in range(2, max(numbers)) if number not in everywhere]
    if len(gaps) != 1 or gaps[0] not in (numbers[-1] - 1, numbers[-1] - 2):
        missing = [number for number in gaps if number < numbers[-1] - 2] or gaps or [numbers[-1] + 1]
        shown = ", ".join(f"{number:02}" for number in numbers[:4])
        shown += f" ... {numbers[-1]:02}" if len(numbers) > 4 else ""
        raise CheckpointError(
            f"layer file {missing[0]:02} is missing: found {shown}",
            where,
            "fetch the missing file; a checkpoint has 00, 02 to L+1, L+3 and (untied) L+4",
        )


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as GPT-NeoX saved it, opened; ``ranks[r]`` has the tensors of tensor-parallel rank r by name."""

    where: str
    files: CheckpointFiles
    layout: str  # sequential, pipeline
    tensor_parallel: int
    pipeline_parallel: int
    ranks: tuple[Mapping[str, RawTensor], ...]
    state: TrainingState

    @classmethod
    def open(cls, files: CheckpointFiles, *, weights: bool = True) -> RawCheckpoint:
        """Read the index of every file that holds weights, and the training state.

        ``weights``: they are read next, so the layer files of a pipeline may be fetched whole.

        Raises:
            CheckpointError: no checkpoint; files are missing, broken or hostile.
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
        if layout.layers:
            ranks = _pipeline_ranks(files, layout)
        else:
            ranks = _sequential_ranks(files, layout, main, weights=weights)
        for number, rank in enumerate(ranks):
            if unmatched := sorted(ranks[0].keys() ^ rank.keys()):
                what = f"rank {number} and rank 0 have different tensors: {some(unmatched, 3)}"
                raise CheckpointError(what, files.where, _FETCH_AGAIN)
        return cls(files.where, files, layout.name, layout.tensor_parallel, layout.pipeline_parallel, ranks, state)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors on all ranks."""
        return sum(tensor.nbytes for rank in self.ranks for tensor in rank.values())

    @property
    def fingerprint(self) -> str:
        """A digest of the tensors' names, shapes and checksums as the archives state them; weights are not read.

        Checkpoints with equal weights have equal fingerprints.
        """
        digest = hashlib.sha256()
        for number, rank in enumerate(self.ranks):
            for name, tensor in sorted(rank.items()):
                digest.update(f"{number} {name} {tensor.dtype} {tensor.shape} {tensor.crc}\n".encode())
        return digest.hexdigest()

    @property
    def dtype(self) -> str:
        """The dtype that most bytes have."""
        sizes: dict[str, int] = {}
        for tensor in self.ranks[0].values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype))

    def prefetch(self) -> None:
        """Announce that all tensors are read next: from a Hub they are fetched now, in as few requests as possible.

        Raises:
            SourceError: the bytes do not match the archives' checksums.
        """
        by_file: dict[str, list[RawTensor]] = {}
        for rank in self.ranks:
            for tensor in rank.values():
                by_file.setdefault(tensor.file, []).append(tensor)
        for name, tensors in by_file.items():
            ranges = {(tensor.offset, tensor.span) for tensor in tensors}
            storages = {Checksum(tensor.storage_at, tensor.storage_bytes, tensor.crc) for tensor in tensors}
            ranges |= {(storage.offset, storage.length) for storage in storages if _unread(storage, ranges) <= PADDING}
            self.files.prefetch(name, sorted(ranges), sorted(storages, key=lambda storage: storage.offset))

    def read(self, tensor: RawTensor, start_row: int = 0, rows: int | None = None) -> NDArray[Any]:
        """Rows of ``tensor`` as a dense array; bfloat16 as the uint16 of its bits. Nothing is cast."""
        import numpy as np  # a schedule is checked without numpy, which takes 0.1 s to import

        from publish.formats.dtypes import VIEWS

        kind = VIEWS[tensor.dtype]
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


def stored_states(files: CheckpointFiles) -> tuple[Mapping[str, RandomState], ...]:
    """The random states in every ``mp_rank`` file, stage by stage, ranks inside. Weights are not read.

    States whose form is not torch's are omitted.

    Raises:
        CheckpointError: no checkpoint, or a broken file.
    """
    found = []
    for path in find_layout(files.sizes, files.where).ranks:
        file = TorchFile.open(path, files.open(path))
        decoded = {name: decode(file.bytes_of(tensor)) for name, tensor in saved_tensors(file.tree).items()}
        found.append({name: state for name, state in decoded.items() if state is not None})
    return tuple(found)


def _unread(storage: Checksum, ranges: Collection[tuple[int, int]]) -> int:
    """Bytes of a storage that are in none of ``ranges``, which do not overlap."""
    end = storage.offset + storage.length
    return storage.length - sum(length for offset, length in ranges if storage.offset <= offset < end)


def _module(file: TorchFile) -> dict[str, StoredTensor]:
    """The tensors of ``module``, if there are any."""
    module = file.tree.get("module") if isinstance(file.tree, dict) else None
    if not isinstance(module, dict):
        return {}
    return {name: tensor for name, tensor in module.items() if isinstance(tensor, StoredTensor)}


def _sequential_ranks(
    files: CheckpointFiles, layout: Layout, main: TorchFile | None, *, weights: bool
) -> tuple[Mapping[str, RawTensor], ...]:
    """``main``: the file of rank 0."""
    ranks = []
    for name in layout.ranks:
        file = main if main is not None and main.name == name else TorchFile.open(name, files.open(name))
        if weights and file is not main:
            files.prefetch(name, file.spans(_module(file).values()))
        module = file.tree.get("module") if isinstance(file.tree, dict) else None
        where = f"{files.where}/{name}"
        if not isinstance(module, dict):
            raise CheckpointError(
                "the file has no weights ('module'), and there are no layer files",
                where,
                "fetch the layer_* files of this checkpoint too",
            )
        stored = _named_tensors(module, where)
        names = _sequential_names(stored, where)
        ranks.append({names[raw]: file.tensor(names[raw], tensor) for raw, tensor in stored.items()})
    return tuple(ranks)


def _pipeline_ranks(files: CheckpointFiles, layout: Layout) -> tuple[Mapping[str, RawTensor], ...]:
    ranks = []
    for by_number in layout.layers:
        last = max(by_number)
        norm = last if last - 1 not in by_number else last - 1
        tensors: dict[str, RawTensor] = {}
        for number, name in sorted(by_number.items()):
            file = TorchFile.open(name, files.open(name))
            for local, stored in _named_tensors(file.tree, f"{files.where}/{name}").items():
                canonical = _canonical_name(number, local, norm, f"{files.where}/{name}")
                tensors[canonical] = file.tensor(canonical, stored)
        ranks.append(tensors)
    return tuple(ranks)


def _named_tensors(tree: object, where: str) -> dict[str, StoredTensor]:
    if not isinstance(tree, dict):
        raise CheckpointError("the file has no named tensors", where, "fetch it again")
    tensors = {}
    for name, value in tree.items():
        if not isinstance(name, str):
            raise CheckpointError(f"a tensor is named {name!r}, which is not a string", where, "fetch the file again")
        if isinstance(value, StoredTensor):
            tensors[name] = value
        elif not name.endswith("_extra_state"):  # TransformerEngine keeps None or bytes there
            raise CheckpointError(f"{name!r} is not a tensor", where, "fetch the file again")
    return tensors


def _sequential_names(names: Collection[str], where: str) -> dict[str, str]:
    """Name in the ``module`` of a sequential checkpoint -> canonical name."""
    numbered = {}
    for name in names:
        found = _SEQUENTIAL_NAME.fullmatch(name)
        if found is None or int(found[1]) > _MAX_LAYERS:
            raise CheckpointError(
                f"{name!r} is not a weight of a GPT-NeoX model", where, "only GPT-NeoX language models can be read"
            )
        numbered[name] = (int(found[1]), found[2])
    norm = max((number for number, local in numbered.values() if local.startswith("norm.")), default=None)
    return {name: _canonical_name(number, local, norm, where) for name, (number, local) in numbered.items()}


def _canonical_name(number: int, local: str, norm: int | None, where: str) -> str:
    """The canonical name of ``local`` in layer file (or sequential index) ``number``; the final norm is in ``norm``."""
    if number == 0:
        return {
            "word_embeddings.weight": "embedding.weight",
            "position_embeddings.weight": "position_embedding.weight",
        }.get(local, f"embedding_layer.{local}")
    if norm is not None and number == norm:
        return f"final_norm.{local.removeprefix('norm.')}"
    if norm is not None and number == norm + 1 and local == "final_linear.weight":
        return "unembedding.weight"
    if number >= 2 and (norm is None or number <= norm - 2):
        return f"layers.{number - 2}.{local}"
    raise CheckpointError(
        f"{local!r} is in layer {number}, where a GPT-NeoX model has no such weight", where, _FETCH_AGAIN
    )
