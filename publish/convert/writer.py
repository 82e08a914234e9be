"""One streaming pass over the weights: every tensor is read, hashed and written once, in safetensors files.

Memory is bounded by one tensor: most are streamed in chunks; only those whose slices interleave are assembled first.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from publish.convert.plan import INDEX_NAME, ConversionPlan, Recipe, WeightFile
from publish.convert.rules import SUM
from publish.dtypes import DTYPES
from publish.errors import ConversionError
from publish.formats.dtypes import VIEWS, cast, from_float32, to_float32
from publish.formats.torch_archive import RawTensor
from publish.interrupt import stop_if
from publish.neox.checkpoint import RawCheckpoint
from publish.records.files import FileRecord

CHUNK = 1 << 20  # bytes that are read, observed, hashed and written at a time: they stay in the processor's cache
Digest = xxhash.xxh3_128
Observer = Callable[[Recipe, memoryview, Digest], None]
"""Called with every chunk of every tensor, in order, and the digest of the tensor's bytes before that chunk."""

_FORMAT_PT = {"format": "pt"}  # transformers refuses files without it
_MIN_CHUNK = 1 << 18  # bytes: smaller chunks are gathered, since handing one to a thread costs some 20 microseconds
_MAX_PENDING = 3  # chunks that wait to be hashed


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """XXH3-128 of a tensor's bytes as they came from the source: merged, and cast where requested."""

    name: str
    xxh3: str


@dataclass(frozen=True, slots=True)
class Written:
    """``tensors`` are in the order of the files. ``bytes_read`` were read from the source while writing."""

    files: tuple[FileRecord, ...]
    tensors: tuple[TensorDigest, ...]
    bytes_read: int


def write_weights(
    checkpoint: RawCheckpoint,
    plan: ConversionPlan,
    folder: Path,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> Written:
    """Write the weight files of ``plan`` into ``folder``, and their index where there are several.

    Raises:
        ConversionError: ranks that must hold equal tensors differ. OSError: the folder cannot be written.
        Interrupted: ``stop`` was set; it is checked before each chunk.
    """
    before = checkpoint.files.bytes_read
    check_identical(checkpoint, plan.identical)
    files: list[FileRecord] = []
    digests: list[TensorDigest] = []
    for file in plan.files:
        with (folder / file.name).open("wb", buffering=1 << 18) as out, BackgroundHash() as sha256:
            head = _header(file)
            sha256.update(head)
            out.write(head)
            for recipe in file.recipes:
                digests.append(_write_tensor(checkpoint, recipe, out, sha256, observer, stop))
            files.append(FileRecord(file.name, out.tell(), sha256.hexdigest()))
    if len(plan.files) > 1:
        files.append(save(folder, INDEX_NAME, _index(plan)))
    return Written(tuple(files), tuple(digests), checkpoint.files.bytes_read - before)


def _write_tensor(
    checkpoint: RawCheckpoint,
    recipe: Recipe,
    out: BinaryIO,
    sha256: BackgroundHash,
    observer: Observer | None,
    stop: threading.Event | None,
) -> TensorDigest:
    digest, size = Digest(), 0
    for chunk in tensor_bytes(checkpoint, recipe):
        stop_if(stop)
        if observer is not None:
            observer(recipe, chunk, digest)
        digest.update(chunk)
        sha256.update(chunk)
        out.write(chunk)
        size += len(chunk)
    if not streams(recipe):
        sha256.wait()  # the chunks may share one buffer as large as the tensor: do not hold two of them
    if size != recipe.nbytes:
        raise AssertionError(f"{recipe.name}: {size} bytes where the plan has {recipe.nbytes}")
    return TensorDigest(recipe.name, digest.hexdigest())


def _index(plan: ConversionPlan) -> bytes:
    """``model.safetensors.index.json`` as transformers writes it, names sorted."""
    places = {recipe.name: file.name for file in plan.files for recipe in file.recipes}
    document = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": places}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _header(file: WeightFile) -> bytes:
    """The header of a safetensors file: its length (8 bytes, little endian) and JSON, padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": _FORMAT_PT}
    at = 0
    for recipe in file.recipes:
        entries[recipe.name] = {
            "dtype": DTYPES[recipe.dtype].safetensors,
            "shape": list(recipe.shape),
            "data_offsets": [at, at + recipe.nbytes],
        }
        at += recipe.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def save(folder: Path, name: str, content: bytes) -> FileRecord:
    """Write a small file. Raises OSError."""
    (folder / name).write_bytes(content)
    return FileRecord(name, len(content), hashlib.sha256(content).hexdigest())


def tensor_bytes(checkpoint: RawCheckpoint, recipe: Recipe) -> Iterator[memoryview]:
    """The bytes of the tensor, row-major, little endian, in chunks of about `CHUNK` bytes."""
    if streams(recipe):
        yield from _stream(checkpoint, recipe)
    elif _joins_columns(recipe):
        yield from _join_columns(checkpoint, recipe)
    else:
        data = _bytes_of(_sum(checkpoint, recipe) if recipe.how == SUM else _assemble(checkpoint, recipe))
        for at in range(0, len(data), CHUNK):
            yield data[at : at + CHUNK]


def streams(recipe: Recipe) -> bool:
    """Whether the slices, one after another, are the tensor: whole rows in order, of contiguous tensors."""
    return recipe.how != SUM and all(
        part.target_column == 0 and part.tensor.shape[1:] == recipe.shape[1:] and part.tensor.contiguous
        for part in recipe.slices
    )


def _stream(checkpoint: RawCheckpoint, recipe: Recipe) -> Iterator[memoryview]:
    for part in recipe.slices:
        (start, count), tensor = part.source_rows, part.tensor
        row = math.prod(tensor.shape[1:]) * tensor.itemsize
        rows = replace(tensor, shape=(count, *tensor.shape[1:]), offset=tensor.offset + start * row)
        for chunk in checkpoint.chunks(rows, CHUNK):
            if recipe.dtype == recipe.source_dtype:
                yield chunk
            else:
                numbers = np.frombuffer(chunk, VIEWS[recipe.source_dtype])
                yield _bytes_of(cast(numbers, recipe.source_dtype, recipe.dtype))


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _joins_columns(recipe: Recipe) -> bool:
    """Whether every slice has all rows of some columns."""
    rows = (0, recipe.shape[0])
    whole = all(part.source_rows == rows and part.target_row == 0 for part in recipe.slices)
    return recipe.how != SUM and len(recipe.shape) == 2 and whole


def _join_columns(checkpoint: RawCheckpoint, recipe: Recipe) -> Iterator[memoryview]:
    """The rows of slices side by side, a few rows at a time."""
    rows, columns = recipe.shape[0], math.prod(recipe.shape[1:])
    kind = VIEWS[recipe.dtype]
    step = max(1, CHUNK // max(1, columns * kind.itemsize))
    for top in range(0, rows, step):
        count = min(step, rows - top)
        band = np.empty((count, columns), kind)
        for part in recipe.slices:
            block = cast(checkpoint.read(part.tensor, top, count), recipe.source_dtype, recipe.dtype)
            band[:, part.target_column : part.target_column + block.shape[1]] = block
        yield _bytes_of(band)


def _assemble(checkpoint: RawCheckpoint, recipe: Recipe) -> NDArray[Any]:
    """The whole tensor in one buffer; slices are read a few rows at a time."""
    whole = np.empty(recipe.shape, VIEWS[recipe.dtype])
    for part in recipe.slices:
        start, count = part.source_rows
        row = max(1, part.tensor.span // max(1, part.tensor.shape[0]))
        step = max(1, CHUNK // row) if len(recipe.shape) > 1 else count
        for at in range(0, count, step):
            rows = min(step, count - at)
            block = cast(checkpoint.read(part.tensor, start + at, rows), recipe.source_dtype, recipe.dtype)
            top = part.target_row + at
            if block.ndim == 1:
                whole[top : top + rows] = block
            else:
                whole[top : top + rows, part.target_column : part.target_column + block.shape[1]] = block
    return whole


def _sum(checkpoint: RawCheckpoint, recipe: Recipe) -> NDArray[Any]:
    """The slices added in float32, in rank order, rounded once."""
    first, *others = recipe.slices
    added = np.array(to_float32(checkpoint.read(first.tensor), recipe.source_dtype))
    for part in others:
        added += to_float32(checkpoint.read(part.tensor), recipe.source_dtype)
    return from_float32(added, recipe.dtype)


def check_identical(checkpoint: RawCheckpoint, groups: tuple[tuple[RawTensor, ...], ...]) -> None:
    """Check that the tensors of each group, one per rank, hold the same bits.

    Raises:
        ConversionError: they do not; names the tensor and the rank.
    """
    for group in groups:
        first = checkpoint.read(group[0]).tobytes()
        for rank, tensor in enumerate(group[1:], start=1):
            if checkpoint.read(tensor).tobytes() != first:
                raise ConversionError(
                    f"{tensor.name} differs between ranks 0 and {rank}; GPT-NeoX keeps equal copies of it",
                    f"{checkpoint.where}/{tensor.file}",
                    "the files belong to different checkpoints, or the run had a fault: fetch them again",
                )


class BackgroundHash:
    """A SHA-256 that another thread computes, a few chunks later than :meth:`update` is given them.

    Use it in a ``with`` block, which ends the thread. Do not change a chunk before it was hashed, see :meth:`wait`.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._gathered = bytearray()  # bytes not yet handed to the thread
        self._chunks: SimpleQueue[bytes | bytearray | memoryview | None] = SimpleQueue()
        self._results: SimpleQueue[Exception | None] = SimpleQueue()  # for each chunk, the error of hashing it
        self._pending = 0
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def __enter__(self) -> BackgroundHash:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._chunks.put(None)
        self._thread.join()

    def update(self, data: bytes | memoryview) -> None:
        """Append ``data``. Raises what hashing an earlier chunk raised."""
        if len(data) < _MIN_CHUNK:
            self._gathered += data
            if len(self._gathered) >= _MIN_CHUNK:
                self._flush()
        else:
            self._flush()
            self._hand_over(data)
        self.wait(_MAX_PENDING)

    def wait(self, pending: int = 0) -> None:
        """Wait until at most ``pending`` chunks are not yet hashed. Raises what hashing a chunk raised."""
        while self._pending > pending:
            self._pending -= 1
            if (error := self._results.get()) is not None:
                raise error

    def hexdigest(self) -> str:
        """The digest of all bytes so far. Raises what hashing a chunk raised."""
        self._flush()
        self.wait()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if self._gathered:
            self._hand_over(self._gathered)
            self._gathered = bytearray()

    def _hand_over(self, data: bytes | bytearray | memoryview) -> None:
        self._chunks.put(data)
        self._pending += 1

    def _run(self) -> None:
        while (data := self._chunks.get()) is not None:
            error = None
            try:
                self._hash.update(data)
            except Exception as found:  # noqa: BLE001  raised by `wait`, which would otherwise wait for ever
                error = found
            self._results.put(error)
