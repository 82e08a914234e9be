"""Byte ranges of named files, wherever they lie."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from publish.errors import SourceError


@dataclass(frozen=True, slots=True)
class Checksum:
    """The CRC-32 of ``length`` bytes at ``offset``, as the file's own index states it; 0: it states none."""

    offset: int
    length: int
    crc32: int


class CheckpointFile(Protocol):
    """One file that is read by position, from any thread."""

    @property
    def size(self) -> int: ...

    @property
    def where(self) -> str:
        """The file as an error names it."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            SourceError: the range lies outside the file, or cannot be read.
        """
        ...


class CheckpointFiles(Protocol):
    """The files of one checkpoint, by path relative to its folder."""

    @property
    def where(self) -> str: ...

    @property
    def sizes(self) -> Mapping[str, int]: ...

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far, all files together."""
        ...

    def open(self, name: str) -> CheckpointFile: ...

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """These ``(offset, length)`` ranges of a file will be read; a remote store fetches them together.

        What came over a network is proven by those checksums of ``proof`` whose bytes are all here.

        Raises:
            SourceError: it has other bytes, however often fetched.
        """
        ...

    def digest(self, name: str) -> str | None:
        """What the store says of the file's content (``sha256:...`` or ``git:...``), where it says anything."""
        ...

    def close(self) -> None: ...


class ByteCount:
    """A count that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self, amount: int) -> None:
        with self._lock:
            self.value += amount


@dataclass(slots=True)
class LocalFile:
    """A file on disk, read with ``pread``; the descriptor is opened once."""

    path: Path
    size: int
    counter: ByteCount
    _descriptor: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def where(self) -> str:
        return str(self.path)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise outside(self, offset, length)
        with self._lock:
            if self._descriptor is None:
                self._descriptor = _opened(self.path)
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise SourceError(
                    f"the file ends at byte {offset + len(data):,} while it was being read",
                    self.path,
                    "it changed; try again",
                )
            data += more
        self.counter.add(length)
        return data

    def close(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"cannot read: {error.strerror}", path, "check that it exists and is readable") from error


def outside(file: CheckpointFile, offset: int, length: int) -> SourceError:
    """The error for a range that a file does not have."""
    return SourceError(
        f"bytes {offset:,} to {offset + length:,} are asked of a file of {file.size:,}",
        file.where,
        "the file is truncated or its index lies; fetch it again",
    )


_TAIL = 256 << 10


def fingerprint(files: CheckpointFiles) -> str:
    """A digest of a checkpoint's files by name, size and last 256 KiB: no weight is read.

    A torch archive ends with the zip directory, which holds the CRC-32 of every storage, so other weights give
    another fingerprint.
    """
    digest = hashlib.sha256()
    for name in sorted(files.sizes):
        if name.endswith((".pt", ".yml", ".yaml")):
            size = files.sizes[name]
            start = max(0, size - _TAIL)
            digest.update(f"{name}\0{size}\0".encode())
            digest.update(files.open(name).read(start, size - start))
    return f"index:{digest.hexdigest()}"


class LocalFiles:
    """A checkpoint folder on disk: its files, those behind symbolic links included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counter = ByteCount()
        self._files: dict[str, LocalFile] = {}
        self._lock = threading.Lock()
        self.sizes: Mapping[str, int] = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def bytes_read(self) -> int:
        return self._counter.value

    def open(self, name: str) -> LocalFile:
        with self._lock:
            if name not in self._files:
                if name not in self.sizes:
                    raise SourceError("no such file", self.folder / name, "check the checkpoint folder")
                self._files[name] = LocalFile(self.folder / name, self.sizes[name], self._counter)
            return self._files[name]

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """Nothing to do: a disk is read by position anyway, and proves its own sectors."""

    def digest(self, name: str) -> str | None:
        return None

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
