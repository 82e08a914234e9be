"""The files of a repo on a Hub, read by position at one commit.

A file in LFS is fetched by range. What was fetched is either kept in a sparse temporary file, so that a second look at
a weight costs no second download (:class:`SpooledFile`), or passes through memory (:class:`StreamedFile`). A file that
git itself holds is small: it is fetched whole and checked against its id (:class:`SmallFile`).
"""

from __future__ import annotations

import mmap
import tempfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import BinaryIO

from publish.errors import SourceError
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile, fetch_file
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.sources.files import ByteCount, Checksum, check_range

MAX_GAP = 64 << 10  # bytes between two ranges that are fetched along rather than skipped by another request
WINDOW = 8 << 20  # bytes of one request of a streamed file at most

_BLOCK = 32 << 10  # bytes that a small read of a spooled file fetches: it is probably a part of an index
_AHEAD = 16 << 10  # bytes that a read of a streamed file fetches where none were announced
_WINDOWS = 2  # in memory of a streamed file: tensors may be asked for in another order than they lie in
_ATTEMPTS = 3  # to fetch bytes that match their checksum


class HubRepo:
    """A repo of checkpoints on a Hub."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        self.name = name
        self.client = client or Client()

    def branches(self) -> Mapping[str, str]:
        """Branch -> full commit id, in one request."""
        return list_branches(self.client, self.name)

    def resolve(self, revision: str) -> str:
        """The full commit id that ``revision`` names now."""
        info = self.client.call(
            f"resolving {self.name}@{revision}",
            lambda: self.client.api.repo_info(self.name, revision=revision),
        )
        if not info.sha:
            raise SourceError("the Hub returned no commit id", f"{self.name}@{revision}", "check the revision")
        return str(info.sha)

    def files(self, commit: str, where: str, *, stream: bool = False) -> HubFiles:
        """The files of ``commit``, in a request per 1000 files.

        ``where`` names the commit in errors. ``stream``: weights are read once, so none of them are kept on disk.
        """
        entries = list_tree(self.client, self.name, commit)
        return HubFiles(self.client, self.name, commit, where, entries, stream=stream)


class HubFiles:
    """The files of one commit, as :class:`publish.sources.files.CheckpointFiles`."""

    def __init__(
        self, client: Client, repo: str, commit: str, where: str, entries: Iterable[TreeEntry], *, stream: bool = False
    ) -> None:
        self.where = where
        self._entries = {entry.path: entry for entry in entries}
        self.sizes: Mapping[str, int] = {path: entry.size for path, entry in self._entries.items()}
        self._client, self._repo, self._commit, self._stream = client, repo, commit, stream
        self._counter = ByteCount()
        self._files: dict[str, SmallFile | SpooledFile | StreamedFile] = {}
        self._lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        return self._counter.value

    def open(self, name: str) -> SmallFile | SpooledFile | StreamedFile:
        with self._lock:
            if name not in self._files:
                if name not in self._entries:
                    raise SourceError("no such file", f"{self.where}/{name}", "check the revision")
                self._files[name] = self._open(self._entries[name])
            return self._files[name]

    def _open(self, entry: TreeEntry) -> SmallFile | SpooledFile | StreamedFile:
        where = f"{self.where}/{entry.path}"
        if entry.lfs_sha256 is None:
            fetch = partial(fetch_file, self._client, self._repo, self._commit, entry)
            return SmallFile(fetch, where, entry.size, self._counter)
        remote = RemoteFile(self._client, self._repo, self._commit, entry.path, entry.size)
        return (StreamedFile if self._stream else SpooledFile)(remote, where, self._counter)

    def prefetch(self, name: str, ranges: list[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        self.open(name).prefetch(ranges, checksums)

    def digest(self, name: str) -> str | None:
        entry = self._entries[name]
        return f"sha256:{entry.lfs_sha256}" if entry.lfs_sha256 else f"git:{entry.oid}"

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()


class SmallFile:
    """A remote file that is fetched whole, and checked, when it is first read."""

    def __init__(self, fetch: Callable[[], bytes], where: str, size: int, counter: ByteCount) -> None:
        self.where = where
        self.size = size
        self._fetch, self._counter = fetch, counter
        self._content: bytes | None = None
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes | memoryview:
        check_range(self, offset, length)
        with self._lock:
            if self._content is None:
                self._content = self._fetch()
                self._counter.add(self.size)
            return self._content[offset : offset + length]

    def prefetch(self, ranges: Sequence[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        """Nothing to do: the first read fetches everything."""

    def close(self) -> None:
        with self._lock:
            self._content = None


class SpooledFile:
    """A remote file whose fetched ranges are kept in a sparse temporary file."""

    def __init__(self, remote: RemoteFile, where: str, counter: ByteCount) -> None:
        self.where = where
        self.size = remote.size
        self._remote, self._counter = remote, counter
        self._spool: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._have: list[tuple[int, int]] = []  # [start, end), ascending, disjoint
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes | memoryview:
        check_range(self, offset, length)
        if length == 0:
            return b""
        end = offset + length
        with self._lock:
            if not self._covers(offset, end):
                self._fill((offset, end) if length >= _BLOCK else self._block(offset, end))
            assert self._map is not None
            return bytes(self._map[offset:end])

    def prefetch(self, ranges: Sequence[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        """Fetch ``(offset, length)`` ranges that are missing, neighbours in one request, and check them.

        Raises:
            SourceError: a range lies outside the file, or its bytes do not match their checksum after three attempts.
        """
        with self._lock:
            for extent in merged(self, ranges):
                self._fill(extent)
            for checksum in checksums:
                self._check(checksum)

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
        """What to fetch for a small read: the file's head, its tail, or a block from ``start``."""
        if end <= 2 * _BLOCK:
            return 0, min(self.size, 2 * _BLOCK)
        if end > self.size - 2 * _BLOCK:
            return max(0, self.size - 2 * _BLOCK), self.size
        return start, min(self.size, start + _BLOCK)

    def _covers(self, start: int, end: int) -> bool:
        return any(first <= start and end <= last for first, last in self._have)

    def _fill(self, extent: tuple[int, int]) -> None:
        """Fetch what is missing of ``extent``. The lock is held."""
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
        spool = self._open()
        for start, stop in missing:
            view = memoryview(spool)[start:stop]
            try:
                self._remote.read_into(start, view)
            finally:
                view.release()
            self._counter.add(stop - start)
            self._note(start, stop)

    def _check(self, checksum: Checksum) -> None:
        """Compare fetched bytes with their checksum; fetch them again if they differ. The lock is held."""
        start, end = checksum.offset, checksum.offset + checksum.length
        if checksum.crc32 == 0 or not checksum.length or not self._covers(start, end):
            return
        spool = self._open()
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._have = [piece for first, last in self._have for piece in _without(first, last, start, end)]
                self._fill((start, end))
            with memoryview(spool) as whole, whole[start:end] as view:
                if zlib.crc32(view) == checksum.crc32:
                    return
        raise SourceError(
            f"bytes {start:,} to {end:,} do not match the file's own checksum",
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

    def _open(self) -> mmap.mmap:
        if self._map is None:
            spool = tempfile.TemporaryFile(prefix="publish-")  # noqa: SIM115  closed in close()
            spool.truncate(self.size)
            self._spool = spool
            self._map = mmap.mmap(spool.fileno(), self.size)
        return self._map


class StreamedFile:
    """A remote file of which a few windows are in memory."""

    def __init__(self, remote: RemoteFile, where: str, counter: ByteCount) -> None:
        self.where = where
        self.size = remote.size
        self._remote, self._counter = remote, counter
        self._announced: list[tuple[int, int]] = []  # [start, end)
        self._windows: deque[tuple[int, memoryview]] = deque(maxlen=_WINDOWS)  # (offset, bytes), the oldest first
        self._lock = threading.Lock()

    def prefetch(self, ranges: Sequence[tuple[int, int]], checksums: Sequence[Checksum] = ()) -> None:
        """Announce what is read next. Nothing is fetched yet, and nothing is checked: no range is kept whole."""
        self._announced = merged(self, ranges, WINDOW)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        check_range(self, offset, length)
        with self._lock:
            for start, window in reversed(self._windows):
                if start <= offset and offset + length <= start + len(window):
                    return window[offset - start : offset - start + length]
            start, window = self._fetch(offset, length)
            self._windows.append((start, window))
            return window[offset - start : offset - start + length]

    def close(self) -> None:
        with self._lock:
            self._windows.clear()

    def _fetch(self, offset: int, length: int) -> tuple[int, memoryview]:
        """A window that holds the range, and where it starts."""
        announced = (end for start, end in self._announced if start <= offset < end)
        ahead = next(announced, min(self.size, offset + _AHEAD))
        start, end = offset, max(offset + length, min(ahead, offset + WINDOW))
        if end > self.size - MAX_GAP:  # an archive's directory is read backwards from its end
            start, end = min(offset, max(0, self.size - MAX_GAP)), self.size
        window = memoryview(bytearray(end - start))
        self._remote.read_into(start, window)
        self._counter.add(end - start)
        return start, window


def merged(
    file: SpooledFile | StreamedFile, ranges: Iterable[tuple[int, int]], most: int | None = None
) -> list[tuple[int, int]]:
    """``(offset, length)`` ranges as ascending ``(start, end)`` extents: neighbours in one, of ``most`` bytes at most.

    Raises:
        SourceError: a range lies outside ``file``.
    """
    extents: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        check_range(file, offset, length)
        start, end = extents[-1] if extents else (offset, -MAX_GAP - 1)
        if offset - end <= MAX_GAP and (most is None or offset + length - start <= most):
            extents[-1] = (start, max(end, offset + length))
        else:
            extents.append((offset, offset + length))
    return extents


def _without(first: int, last: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is left of ``[first, last)`` without ``[start, end)``."""
    if first < min(last, start):
        yield first, min(last, start)
    if max(first, end) < last:
        yield max(first, end), last
