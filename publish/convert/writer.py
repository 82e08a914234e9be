"""One streaming pass: read, digest and write every tensor once, under a temporary name, renamed when complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from publish.convert.behind import HashBehind
from publish.convert.blocks import check_identical, streams, tensor_bytes
from publish.convert.recipes import INDEX_NAME, ConversionPlan, Recipe, WeightFile
from publish.convert.safetensors_file import header, index
from publish.convert.written import Digest, TensorDigest, Written, WrittenFile, save
from publish.errors import StorageError
from publish.neox.checkpoint import RawCheckpoint

Observer = Callable[[Recipe, memoryview, Digest], None]
"""Called with every chunk of every tensor, in order, and the digest of the tensor's bytes before the chunk."""


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
    """A file and the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO, whole: HashBehind) -> None:
        self.size = 0
        self.whole, self._file = whole, file

    def write(self, data: bytes | memoryview) -> None:
        self.whole.update(data)
        self._file.write(data)
        self.size += len(data)


def _write_file(
    checkpoint: RawCheckpoint,
    file: WeightFile,
    folder: Path,
    digests: list[TensorDigest],
    observer: Observer | None,
) -> WrittenFile:
    temporary = folder / f".{file.name}.tmp-{os.getpid()}"
    try:
        with temporary.open("wb", buffering=1 << 18) as raw, HashBehind() as whole:
            out = _Output(raw, whole)
            out.write(header(file))
            digests.extend(_write_tensor(checkpoint, recipe, out, observer) for recipe in file.recipes)
            sha256 = whole.hexdigest()
        temporary.replace(folder / file.name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return WrittenFile(file.name, out.size, sha256, None)


def _write_tensor(checkpoint: RawCheckpoint, recipe: Recipe, out: _Output, observer: Observer | None) -> TensorDigest:
    own, start = Digest(), out.size
    for chunk in tensor_bytes(checkpoint, recipe):
        if observer is not None:
            observer(recipe, chunk, own)
        own.update(chunk)
        out.write(chunk)
    if not streams(recipe):
        out.whole.settle()  # its chunks may be of one buffer, as large as the tensor: two would be held
    if out.size - start != recipe.nbytes:
        raise AssertionError(f"{recipe.name}: {out.size - start} bytes where the plan has {recipe.nbytes}")
    return TensorDigest(recipe.name, own.hexdigest())
