"""One streaming pass: read, hash and write every tensor once."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import BinaryIO

import xxhash

from publish.convert.blocks import check_identical, streams, tensor_bytes
from publish.convert.plan import INDEX_NAME, ConversionPlan, Recipe, WeightFile
from publish.dtypes import DTYPES
from publish.errors import StorageError
from publish.interrupt import stop_if
from publish.neox.checkpoint import RawCheckpoint
from publish.records.files import FileRecord

# The safetensors format: an 8-byte length, a JSON header, the tensors' bytes without gaps.


FORMAT_PT = {"format": "pt"}  # transformers refuses files without it


def header(file: WeightFile) -> bytes:
    """The bytes before the tensors: length (8, little endian) and padded JSON."""
    entries: dict[str, object] = {"__metadata__": FORMAT_PT}
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


def file_size(file: WeightFile) -> int:
    """Bytes of the whole file, known before anything is written."""
    return len(header(file)) + sum(recipe.nbytes for recipe in file.recipes)


def index(plan: ConversionPlan) -> bytes:
    """``model.safetensors.index.json`` as transformers writes it: canonical JSON, names sorted."""
    places: Mapping[str, str] = {recipe.name: file.name for file in plan.files for recipe in file.recipes}
    document = {"metadata": {"total_size": plan.weight_bytes}, "weight_map": places}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


# What was written: paths, sizes, digests.


Digest = xxhash.xxh3_128


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """XXH3-128 of a tensor's bytes as they came from the source: merged, and cast where asked."""

    name: str
    xxh3: str


@dataclass(frozen=True, slots=True)
class Written:
    """``bytes_read``: of the source, while writing. ``tensors`` are in the order of the files."""

    files: tuple[FileRecord, ...]
    tensors: tuple[TensorDigest, ...]
    bytes_read: int


def save(folder: Path, name: str, content: bytes) -> FileRecord:
    """Write a small file. Raises OSError."""
    (folder / name).write_bytes(content)
    return FileRecord(name, len(content), hashlib.sha256(content).hexdigest())


# A SHA-256 that a second thread computes, a few chunks behind whoever has the bytes.


_WORTH_A_THREAD = 1 << 18  # bytes: less is gathered, since handing over takes both threads some 20 microseconds
_BEHIND = 3  # chunks that hashing may lag behind


class BackgroundHash:
    """Fed with :meth:`update`, within a ``with`` block, which ends the thread. Chunks must not change once given."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._gathered = bytearray()  # too little to be handed over
        self._given: SimpleQueue[bytes | bytearray | memoryview | None] = SimpleQueue()
        self._hashed: SimpleQueue[Exception | None] = SimpleQueue()  # for each chunk, why it could not be
        self._behind = 0
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def __enter__(self) -> BackgroundHash:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given.put(None)
        self._thread.join()

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        small = len(data) < _WORTH_A_THREAD
        if small:
            self._gathered += data
        if not small or len(self._gathered) >= _WORTH_A_THREAD:
            self._hand_over()
        if not small:
            self._give(data)
        self.settle(_BEHIND)

    def settle(self, behind: int = 0) -> None:
        """Wait until no more than ``behind`` chunks are to be hashed: the others' memory can go.

        Raises:
            Exception: what hashing one of them raised.
        """
        while self._behind > behind:
            self._behind -= 1
            if (error := self._hashed.get()) is not None:
                raise error

    def hexdigest(self) -> str:
        """Of all bytes."""
        self._hand_over()
        self.settle()
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        if self._gathered:
            self._give(self._gathered)
            self._gathered = bytearray()

    def _give(self, data: bytes | bytearray | memoryview) -> None:
        self._given.put(data)
        self._behind += 1

    def _run(self) -> None:
        while (data := self._given.get()) is not None:
            error = None
            try:
                self._hash.update(data)
            except Exception as found:  # noqa: BLE001  raised by `settle`, which would else wait for ever
                error = found
            self._hashed.put(error)


Observer = Callable[[Recipe, memoryview, Digest], None]
"""Called with every chunk of every tensor, in order, and the digest of the tensor's bytes before the chunk."""


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
        with (folder / file.name).open("wb", buffering=1 << 18) as raw, BackgroundHash() as whole:
            out = _Output(raw, whole)
            out.write(header(file))
            digests.extend(_write_tensor(checkpoint, recipe, out, observer, stop) for recipe in file.recipes)
            sha256 = whole.hexdigest()
        files.append(FileRecord(file.name, out.size, sha256))
    if len(plan.files) > 1:
        files.append(save(folder, INDEX_NAME, index(plan)))
    return Written(tuple(files), tuple(digests), checkpoint.files.bytes_read - before)


def storage_error(error: OSError, folder: Path) -> StorageError:
    """The error for a folder that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some space, or choose another folder" if full else "check the folder and its permissions"
    return StorageError(f"cannot write: {error.strerror or error}", error.filename or folder, fix)


class _Output:
    """A file and the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO, whole: BackgroundHash) -> None:
        self.size = 0
        self.whole, self._file = whole, file

    def write(self, data: bytes | memoryview) -> None:
        self.whole.update(data)
        self._file.write(data)
        self.size += len(data)


def _write_tensor(
    checkpoint: RawCheckpoint,
    recipe: Recipe,
    out: _Output,
    observer: Observer | None,
    stop: threading.Event | None,
) -> TensorDigest:
    own, start = Digest(), out.size
    for chunk in tensor_bytes(checkpoint, recipe):
        stop_if(stop)
        if observer is not None:
            observer(recipe, chunk, own)
        own.update(chunk)
        out.write(chunk)
    if not streams(recipe):
        out.whole.settle()  # its chunks may be of one buffer, as large as the tensor: two would be held
    if out.size - start != recipe.nbytes:
        raise AssertionError(f"{recipe.name}: {out.size - start} bytes where the plan has {recipe.nbytes}")
    return TensorDigest(recipe.name, own.hexdigest())
