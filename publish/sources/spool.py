"""Files of a Hub as they are here: fetched by range into a sparse file, or whole when small; proven either way."""

from __future__ import annotations

import mmap
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from publish.errors import SourceError
from publish.sources.files import ByteCount, Checksum, outside

if TYPE_CHECKING:
    from publish.hub.downloads import RemoteFile


_BLOCK = 32 << 10
_FETCHES = 3
_NEAR = 64 << 10  # gaps up to this are fetched rather than paid for with a request


class SmallFile:
    """A remote file that is fetched whole when it is first read, and proven as a whole."""

    def __init__(self, fetch: Callable[[], bytes], where: str, size: int, counter: ByteCount) -> None:
        self.where = where
        self.size = size
        self._fetch = fetch
        self._counter = counter
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise outside(self, offset, length)
        with self._lock:
            if self._content is None:
                self._content = self._fetch()
                self._counter.add(self.size)
            return self._content[offset : offset + length]

    def close(self) -> None:
        with self._lock:
            self._content = None


class SpooledFile:
    """A remote file whose fetched ranges lie in a sparse temporary file."""

    def __init__(self, remote: RemoteFile, where: str, counter: ByteCount) -> None:
        self.where = where
        self.size = remote.size
        self._remote = remote
        self._counter = counter
        self._spool: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._have: list[tuple[int, int]] = []  # [start, end), ascending, disjoint
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise outside(self, offset, length)
        if length == 0:
            return b""
        end = offset + length
        wanted = (offset, end) if length >= _BLOCK else self._block(offset, end)
        with self._lock:
            if not self._covered(offset, end):
                self._fill(wanted)
            assert self._map is not None
            return bytes(self._map[offset:end])

    def fetch(self, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """Fetch ``(offset, length)`` ranges that are not here yet, neighbours in one request, and prove them.

        Raises:
            SourceError: outside the file, or not what ``proof`` says, however often fetched.
        """
        merged: list[tuple[int, int]] = []
        for offset, length in sorted(ranges):
            if offset < 0 or length < 0 or offset + length > self.size:
                raise outside(self, offset, length)
            if merged and offset - merged[-1][1] <= _NEAR:
                merged[-1] = (merged[-1][0], max(merged[-1][1], offset + length))
            else:
                merged.append((offset, offset + length))
        with self._lock:
            for extent in merged:
                self._fill(extent)
            for checksum in proof:
                self._prove(checksum)

    def close(self) -> None:
        with self._lock:
            if self._spool is not None:
                self._spool.close()
            if self._map is not None:
                with suppress(BufferError):  # the traceback of a failed read holds a view: the map goes with that
                    self._map.close()
            self._map, self._spool = None, None
            self._have.clear()

    def _block(self, start: int, end: int) -> tuple[int, int]:
        """The head, the tail, or a block from ``start``, for a small read."""
        if end <= 2 * _BLOCK:
            return 0, min(self.size, 2 * _BLOCK)
        if end > self.size - 2 * _BLOCK:
            return max(0, self.size - 2 * _BLOCK), self.size
        return start, min(self.size, start + _BLOCK)

    def _covered(self, start: int, end: int) -> bool:
        return any(first <= start and end <= last for first, last in self._have)

    def _fill(self, extent: tuple[int, int]) -> None:
        """Fetch what of ``extent`` is missing; the lock is held."""
        at, end = extent
        missing = []
        for first, last in self._have:
            if last <= at or first >= end:
                continue
            if at < first:
                missing.append((at, first))
            at = max(at, last)
        if at < end:
            missing.append((at, end))
        spool = self._opened()
        for start, stop in missing:
            view = memoryview(spool)[start:stop]
            try:
                self._remote.read_into(start, view)
            finally:
                view.release()
            self._counter.add(stop - start)
            self._note(start, stop)

    def _prove(self, checksum: Checksum) -> None:
        """Compare bytes that are here with their checksum, and fetch them again where they differ; lock held."""
        start, end = checksum.offset, checksum.offset + checksum.length
        if checksum.crc32 == 0 or not checksum.length or not self._covered(start, end):
            return
        spool = self._opened()
        for attempt in range(_FETCHES):
            if attempt:
                self._have = [piece for first, last in self._have for piece in _without(first, last, start, end)]
                self._fill((start, end))
            with memoryview(spool) as whole, whole[start:end] as view:
                if zlib.crc32(view) == checksum.crc32:
                    return
        raise SourceError(
            f"bytes {start:,} to {end:,} are not what the file's own checksum says",
            self.where,
            "the file is damaged, or a cache between here and the Hub is: upload it again, or read it elsewhere",
        )

    def _note(self, start: int, stop: int) -> None:
        joined: list[tuple[int, int]] = []
        for first, last in sorted([*self._have, (start, stop)]):
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        self._have = joined

    def _opened(self) -> mmap.mmap:
        if self._map is None:
            spool = tempfile.TemporaryFile(prefix="publish-")  # noqa: SIM115  closed in close()
            spool.truncate(self.size)
            self._spool = spool
            self._map = mmap.mmap(spool.fileno(), self.size)
        return self._map


def _without(first: int, last: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is left of ``[first, last)`` without ``[start, end)``."""
    if first < min(last, start):
        yield first, min(last, start)
    if max(first, end) < last:
        yield max(first, end), last
