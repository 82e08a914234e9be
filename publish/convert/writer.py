"""One streaming pass: read, digest and write every tensor once, under a temporary name, renamed when complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

from publish.convert.blocks import check_identical, tensor_bytes
from publish.convert.recipes import INDEX_NAME, ConversionPlan, Recipe, WeightFile
from publish.convert.safetensors_file import header, index
from publish.convert.written import TensorDigest, Written, WrittenFile, save
from publish.errors import StorageError
from publish.neox.checkpoint import RawCheckpoint

_WORTH_A_THREAD = 1 << 16  # bytes: handing over takes some 20 microseconds, as long as hashing them
Observer = Callable[[Recipe, memoryview], None]  # called with every chunk of every tensor, in order


def write_weights(
    checkpoint: RawCheckpoint, plan: ConversionPlan, folder: Path, observer: Observer | None = None
) -> Written:
    """Execute ``plan`` into ``folder``: the weight files, and their index where there are several.

    Either all files are there afterwards, or none.

    Raises:
        ConversionError: ranks that must agree differ.
        StorageError: no space left, or the folder cannot be written.
    """
    before = checkpoint.files.bytes_read
    check_identical(checkpoint, plan.identical)
    files: list[WrittenFile] = []
    digests: list[TensorDigest] = []
    with cleaned_up(folder) as done:
        for file in plan.files:
            files.append(_write_file(checkpoint, file, folder, digests, observer))
            done.append(folder / file.name)
        if len(plan.files) > 1:
            files.append(save(folder, INDEX_NAME, index(plan)))
    return Written(tuple(files), tuple(digests), checkpoint.files.bytes_read - before)


@contextmanager
def cleaned_up(folder: Path) -> Iterator[list[Path]]:
    """Remove the paths that were noted, if the block fails; an OSError becomes a StorageError."""
    done: list[Path] = []
    try:
        yield done
    except BaseException as error:
        for path in done:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(error, folder) from error
        raise


def storage_error(error: OSError, folder: Path) -> StorageError:
    """The error for a folder that cannot be written."""
    fix = "free some space, or choose another folder" if error.errno == 28 else "check the folder and its permissions"
    return StorageError(f"cannot write: {error.strerror or error}", error.filename or folder, fix)


class _Output:
    """A file and its SHA-256, which a second thread computes while the next bytes are read and written."""

    def __init__(self, file: BinaryIO, hasher: ThreadPoolExecutor) -> None:
        self.size = 0
        self._file, self._hasher = file, hasher
        self._whole = hashlib.sha256()
        self._pending: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        self.settle()
        if len(data) < _WORTH_A_THREAD:
            self._whole.update(data)
        else:
            self._pending = self._hasher.submit(self._whole.update, data)
        self._file.write(data)
        self.size += len(data)

    def settle(self) -> None:
        """Wait until all bytes are hashed, so that their buffer can go."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def sha256(self) -> str:
        self.settle()
        return self._whole.hexdigest()


def _write_file(
    checkpoint: RawCheckpoint,
    file: WeightFile,
    folder: Path,
    digests: list[TensorDigest],
    observer: Observer | None,
) -> WrittenFile:
    temporary = folder / f".{file.name}.tmp-{os.getpid()}"
    try:
        with temporary.open("wb", buffering=1 << 18) as raw, ThreadPoolExecutor(1) as hasher:
            out = _Output(raw, hasher)
            out.write(header(file))
            digests.extend(_write_tensor(checkpoint, recipe, out, observer) for recipe in file.recipes)
        temporary.replace(folder / file.name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return WrittenFile(file.name, out.size, out.sha256(), None)


def _write_tensor(checkpoint: RawCheckpoint, recipe: Recipe, out: _Output, observer: Observer | None) -> TensorDigest:
    own, start = xxhash.xxh3_128(), out.size
    for chunk in tensor_bytes(checkpoint, recipe):
        out.write(chunk)
        own.update(chunk)
        if observer is not None:
            observer(recipe, chunk)
    out.settle()
    if out.size - start != recipe.nbytes:
        raise AssertionError(f"{recipe.name}: {out.size - start} bytes where the plan has {recipe.nbytes}")
    return TensorDigest(recipe.name, own.hexdigest())
