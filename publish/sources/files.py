"""The files of a checkpoint, read by position, wherever they are; and those of a folder on disk."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from publish.errors import SourceError

_TAIL = 256 << 10


@dataclass(frozen=True, slots=True)
class Checksum:
    """The CRC-32 of ``length`` bytes at ``offset``, as the file's own index states it; 0 if it states none."""

    offset: int
    length: int
    crc32: int


class CheckpointFile(Protocol):
    """A file that is read by position, from any thread."""

    @property
    def size(self) -> int: ...

    @property
    def where(self) -> str:
        """How errors name the file."""
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
        """Bytes fetched so far, of all files together."""
        ...

    def open(self, name: str) -> CheckpointFile: ...

    def prefetch(self, name: str, ranges: list[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        """Announce that these ``(offset, length)`` ranges of a file are read next: a Hub's are fetched together.

        Bytes that came over a network are compared with those ``checksums`` that they cover.

        Raises:
            SourceError: they do not match, however often they are fetched.
        """
        ...

    def digest(self, name: str) -> str | None:
        """The digest that the store states for the file (``sha256:...`` or ``git:...``), if it states one."""
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


def check_range(file: CheckpointFile, offset: int, length: int) -> None:
    """Refuse a range that lies outside the file.

    Raises:
        SourceError: with the range and the size.
    """
    if offset < 0 or length < 0 or offset + length > file.size:
        raise SourceError(
            f"bytes {offset:,} to {offset + length:,} were requested from a file of {file.size:,} bytes",
            file.where,
            "the file is truncated or its index is wrong; fetch it again",
        )


@dataclass(slots=True)
class LocalFile:
    """A file on disk, read with ``pread`` by one descriptor."""

    path: Path
    size: int
    counter: ByteCount
    _descriptor: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def where(self) -> str:
        return str(self.path)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        check_range(self, offset, length)
        with self._lock:
            if self._descriptor is None:
                self._descriptor = self._open()
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                what = f"the file ended at byte {offset + len(data):,} while it was read"
                raise SourceError(what, self.path, "it was changed meanwhile; run the command again")
            data += more
        self.counter.add(length)
        return data

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            what = f"cannot read: {error.strerror}"
            raise SourceError(what, self.path, "check that it exists and is readable") from error

    def close(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class LocalFiles:
    """The files of a checkpoint folder on disk, including those behind symbolic links."""

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

    def prefetch(self, name: str, ranges: list[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        """Nothing to do: a disk is read by position anyway, and checks its own sectors."""

    def digest(self, name: str) -> str | None:
        return None

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()


def fingerprint(files: CheckpointFiles) -> str:
    """``index:`` and a digest of a checkpoint's files by name, size and last 256 KiB. Weights are not read.

    A torch archive ends with the zip directory, which holds the CRC-32 of every storage, so other weights give another
    fingerprint.
    """
    digest = hashlib.sha256()
    for name in sorted(files.sizes):
        if name.endswith((".pt", ".yml", ".yaml")):
            size = files.sizes[name]
            start = max(0, size - _TAIL)
            digest.update(f"{name}\0{size}\0".encode())
            digest.update(files.open(name).read(start, size - start))
    return f"index:{digest.hexdigest()}"
