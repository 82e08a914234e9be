"""What was written: paths, sizes, digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import xxhash

Digest = xxhash.xxh3_128


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of an HF folder. ``git_blob_sha1`` is None for weights: they go to LFS, by their SHA-256."""

    path: str
    size: int
    sha256: str
    git_blob_sha1: str | None


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """XXH3-128 of a tensor's bytes as they came from the source: merged, and cast where asked."""

    name: str
    xxh3: str


@dataclass(frozen=True, slots=True)
class Written:
    """``bytes_read``: of the source, while writing. ``tensors`` are in the order of the files."""

    files: tuple[WrittenFile, ...]
    tensors: tuple[TensorDigest, ...]
    bytes_read: int


def small_file(name: str, content: bytes) -> WrittenFile:
    """The record of a file that git keeps itself."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return WrittenFile(name, len(content), hashlib.sha256(content).hexdigest(), blob.hexdigest())


def save(folder: Path, name: str, content: bytes) -> WrittenFile:
    """Write a small file. Raises OSError."""
    (folder / name).write_bytes(content)
    return small_file(name, content)
