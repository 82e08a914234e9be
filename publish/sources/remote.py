"""Raw checkpoints on a Hub: files of one commit, fetched by range into a sparse spool, every byte once.

What is asked for is fetched once and kept in a temporary sparse file, so a gate that looks at a weight again costs
no second download. Small reads at a file's head and tail fetch a block, which holds the whole index.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from publish.errors import SourceError
from publish.sources.files import ByteCount, Checksum, outside
from publish.sources.spool import SmallFile, SpooledFile

if TYPE_CHECKING:
    from publish.hub.client import Client
    from publish.hub.downloads import RemoteFile
    from publish.hub.reads import TreeEntry


# Files of one commit on a Hub, read in passing: ranges come into memory, nothing is written to disk.


WINDOW = 8 << 20  # bytes of one request at most
_KEPT = 2  # windows of a file: tensors may be asked for in another order than they lie in
_NEAR = 64 << 10  # gaps up to this are fetched rather than paid for with a request
_SMALL = 16 << 10  # what a read that was not announced fetches: an index is read in small pieces


class StreamedFiles:
    """The files of one commit; see :class:`publish.source.files.CheckpointFiles`."""

    def __init__(self, client: Client, repo: str, commit: str, where: str, entries: Sequence[TreeEntry]) -> None:
        self.where = where
        self.sizes: Mapping[str, int] = {entry.path: entry.size for entry in entries}
        self._entries = {entry.path: entry for entry in entries}
        self._client, self._repo, self._commit = client, repo, commit
        self._counter = ByteCount()
        self._files: dict[str, StreamedFile] = {}

    @property
    def bytes_read(self) -> int:
        return self._counter.value

    def open(self, name: str) -> StreamedFile:
        from publish.hub.downloads import RemoteFile

        if name not in self._files:
            if name not in self._entries:
                raise SourceError("no such file", f"{self.where}/{name}", "check the revision")
            remote = RemoteFile(self._client, self._repo, self._commit, name, self.sizes[name])
            self._files[name] = StreamedFile(remote, f"{self.where}/{name}", self._counter)
        return self._files[name]

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """These ``(offset, length)`` ranges are read next, and the ones of before no more.

        Bytes are not kept until all that a checksum covers are here, so ``proof`` is of no use.
        """
        self.open(name).announce(ranges)

    def digest(self, name: str) -> str | None:
        entry = self._entries[name]
        return f"sha256:{entry.lfs_sha256}" if entry.lfs_sha256 else f"git:{entry.oid}"

    def close(self) -> None:
        self._files.clear()


class StreamedFile:
    """A remote file of which a few windows are in memory."""

    def __init__(self, remote: RemoteFile, where: str, counter: ByteCount) -> None:
        self.where = where
        self.size = remote.size
        self._remote, self._counter = remote, counter
        self._announced: list[tuple[int, int]] = []  # [start, end)
        self._windows: deque[tuple[int, memoryview]] = deque(maxlen=_KEPT)  # (offset, bytes), the oldest first
        self._lock = threading.Lock()

    def announce(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Neighbours are fetched together where one window holds them; a larger range is fetched in several."""
        merged: list[tuple[int, int]] = []
        for offset, length in sorted(ranges):
            if offset < 0 or length < 0 or offset + length > self.size:
                raise outside(self, offset, length)
            start, end = merged[-1] if merged else (offset, -_NEAR - 1)
            if offset - end <= _NEAR and offset + length - start <= WINDOW:
                merged[-1] = (start, max(end, offset + length))
            else:
                merged.append((offset, offset + length))
        self._announced = merged

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise outside(self, offset, length)
        with self._lock:
            for start, window in reversed(self._windows):
                if start <= offset and offset + length <= start + len(window):
                    return window[offset - start : offset - start + length]
            start, window = self._fetch(offset, length)
            self._windows.append((start, window))
            return window[offset - start : offset - start + length]

    def _fetch(self, offset: int, length: int) -> tuple[int, memoryview]:
        """A window that holds the range, and where it starts."""
        start, end = offset, max(offset + length, min(self._extent(offset), offset + WINDOW))
        if end > self.size - _NEAR:  # an archive's directory is read backwards from its end
            start, end = min(offset, max(0, self.size - _NEAR)), self.size
        window = memoryview(bytearray(end - start))
        self._remote.read_into(start, window)
        self._counter.add(end - start)
        return start, window

    def _extent(self, offset: int) -> int:
        """Up to where to read ahead from ``offset``."""
        announced = (end for start, end in self._announced if start <= offset < end)
        return next(announced, min(self.size, offset + _SMALL))


class HubRepo:
    """A repo of raw checkpoints on a Hub."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        from publish.hub.client import Client as HubClient

        self.name = name
        self.client = client or HubClient()

    def branches(self) -> Mapping[str, str]:
        """Branch -> full commit id, in one request."""
        from publish.hub.reads import list_branches

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

    def files(self, commit: str, where: str) -> HubFiles:
        """The files of ``commit``; a request per 1000 files."""
        return HubFiles(self.client, self.name, commit, where, self._tree(commit))

    def stream(self, commit: str, where: str) -> StreamedFiles:
        """The files of ``commit`` for a reader that passes over them once; nothing is kept on disk."""
        return StreamedFiles(self.client, self.name, commit, where, self._tree(commit))

    def _tree(self, commit: str) -> tuple[TreeEntry, ...]:
        from publish.hub.reads import list_tree

        return list_tree(self.client, self.name, commit)


class HubFiles:
    """The files of one commit; see :class:`publish.source.files.CheckpointFiles`."""

    def __init__(self, client: Client, repo: str, commit: str, where: str, entries: tuple[TreeEntry, ...]) -> None:
        self.where = where
        self.sizes: Mapping[str, int] = {entry.path: entry.size for entry in entries}
        self._entries = {entry.path: entry for entry in entries}
        self._client, self._repo, self._commit = client, repo, commit
        self._counter = ByteCount()
        self._files: dict[str, SpooledFile | SmallFile] = {}
        self._lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        return self._counter.value

    def open(self, name: str) -> SpooledFile | SmallFile:
        with self._lock:
            if name not in self._files:
                if name not in self._entries:
                    raise SourceError("no such file", f"{self.where}/{name}", "check the revision")
                self._files[name] = self._opened(self._entries[name])
            return self._files[name]

    def _opened(self, entry: TreeEntry) -> SpooledFile | SmallFile:
        from publish.hub.downloads import RemoteFile, fetch_file

        where = f"{self.where}/{entry.path}"
        if entry.lfs_sha256 is None:  # a git blob: small, and proven by its id
            fetch = partial(fetch_file, self._client, self._repo, self._commit, entry)
            return SmallFile(fetch, where, entry.size, self._counter)
        return SpooledFile(
            RemoteFile(self._client, self._repo, self._commit, entry.path, entry.size), where, self._counter
        )

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """Fetch ``(offset, length)`` ranges now, neighbours together, and prove them."""
        file = self.open(name)
        if isinstance(file, SpooledFile):
            file.fetch(ranges, proof)

    def digest(self, name: str) -> str | None:
        entry = self._entries[name]
        return f"sha256:{entry.lfs_sha256}" if entry.lfs_sha256 else f"git:{entry.oid}"

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
