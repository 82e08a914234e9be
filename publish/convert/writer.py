"""One streaming pass: read, digest and write every tensor once, under a temporary name, renamed when complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

from publish.convert.blocks import check_identical, tensor_bytes
from publish.convert.recipes import INDEX_NAME, ConversionPlan, Recipe, WeightFile
from publish.convert.safetensors_file import header, index
from publish.convert.written import TensorDigest, Written, WrittenFile, save
from publish.errors import ConversionError, StorageError
from publish.neox.checkpoint import RawCheckpoint

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


def _write_file(
    checkpoint: RawCheckpoint,
    file: WeightFile,
    folder: Path,
    digests: list[TensorDigest],
    observer: Observer | None,
) -> WrittenFile:
    temporary = folder / f".{file.name}.tmp-{os.getpid()}"
    try:
        with temporary.open("wb", buffering=1 << 20) as out:
            out.truncate(0)
            whole = hashlib.sha256()
            size = _emit(out, whole, header(file))
            for recipe in file.recipes:
                digest, written = _write_tensor(checkpoint, recipe, out, whole, observer)
                digests.append(digest)
                size += written
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(folder / file.name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return WrittenFile(file.name, size, whole.hexdigest(), None)


def _write_tensor(
    checkpoint: RawCheckpoint, recipe: Recipe, out: BinaryIO, whole: hashlib._Hash, observer: Observer | None
) -> tuple[TensorDigest, int]:
    own, size = xxhash.xxh3_128(), 0
    for chunk in tensor_bytes(checkpoint, recipe):
        own.update(chunk)
        size += _emit(out, whole, chunk)
        if observer is not None:
            observer(recipe, chunk)
    if size != recipe.nbytes:
        raise ConversionError(
            f"{recipe.name} has {size:,} bytes where the plan has {recipe.nbytes:,}", checkpoint.where, "report this"
        )
    return TensorDigest(recipe.name, own.hexdigest()), size


def _emit(out: BinaryIO, whole: hashlib._Hash, data: bytes | memoryview) -> int:
    whole.update(data)
    out.write(data)
    return len(data)
