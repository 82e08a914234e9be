"""Raw checkpoints on a Hub: files of one commit, fetched by range into a sparse spool, every byte once.

What is asked for is fetched once and kept in a temporary sparse file, so a gate that looks at a weight again costs
no second download. Small reads at a file's head and tail fetch a block, which holds the whole index.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO

from publish.errors import SourceError
from publish.source.files import ByteCount, outside

if TYPE_CHECKING:
    from publish.source.streamed import StreamedFiles
    from publish.wire.client import Client
    from publish.wire.ranges import RemoteFile
    from publish.wire.repo import TreeEntry

_BLOCK = 32 << 10
_NEAR = 64 << 10  # gaps up to this are fetched rather than paid for with a request


class HubReader:
    """One raw-checkpoint repo on a Hub."""

    def __init__(self, repo: str, client: Client | None = None) -> None:
        from publish.wire.client import Client as WireClient

        self.repo = repo
        self.client = client or WireClient()

    def branches(self) -> Mapping[str, str]:
        """Branch -> full commit id, in one request."""
        from publish.wire.repo import list_branches

        return list_branches(self.client, self.repo)

    def resolve(self, revision: str) -> str:
        """The full commit id that ``revision`` names now."""
        info = self.client.call(
            f"resolving {self.repo}@{revision}",
            lambda: self.client.api.repo_info(self.repo, revision=revision),
        )
        if not info.sha:
            raise SourceError("the Hub tells no commit", f"{self.repo}@{revision}", "check the revision")
        return str(info.sha)

    def files(self, commit: str, where: str) -> HubFiles:
        """The files of ``commit``."""
        from publish.wire.repo import list_tree

        return HubFiles(self.client, self.repo, commit, where, list_tree(self.client, self.repo, commit))

    def stream(self, commit: str, where: str) -> StreamedFiles:
        """The files of ``commit`` for a reader that passes over them once; nothing is kept on disk."""
        from publish.source.streamed import StreamedFiles
        from publish.wire.repo import list_tree

        return StreamedFiles(self.client, self.repo, commit, where, list_tree(self.client, self.repo, commit))


class HubFiles:
    """The files of one commit; see :class:`publish.source.files.CheckpointFiles`."""

    def __init__(self, client: Client, repo: str, commit: str, where: str, entries: tuple[TreeEntry, ...]) -> None:
        self.where = where
        self.sizes: Mapping[str, int] = {entry.path: entry.size for entry in entries}
        self._entries = {entry.path: entry for entry in entries}
        self._client, self._repo, self._commit = client, repo, commit
        self._counter = ByteCount()
        self._files: dict[str, SpooledFile] = {}
        self._lock = threading.Lock()

    @property
    def bytes_read(self) -> int:
        return self._counter.value

    def open(self, name: str) -> SpooledFile:
        from publish.wire.ranges import RemoteFile

        with self._lock:
            if name not in self._files:
                if name not in self._entries:
                    raise SourceError("no such file", f"{self.where}/{name}", "check the revision")
                remote = RemoteFile(self._client, self._repo, self._commit, name, self.sizes[name])
                self._files[name] = SpooledFile(remote, f"{self.where}/{name}", self._counter)
            return self._files[name]

    def want(self, name: str, ranges: list[tuple[int, int]]) -> None:
        """Fetch ``(offset, length)`` ranges now, neighbours together."""
        self.open(name).fetch(ranges)

    def digest(self, name: str) -> str | None:
        entry = self._entries[name]
        return f"sha256:{entry.lfs_sha256}" if entry.lfs_sha256 else f"git:{entry.oid}"

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()


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

    def fetch(self, ranges: list[tuple[int, int]]) -> None:
        """Fetch ``(offset, length)`` ranges that are not here yet, neighbours in one request."""
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

    def close(self) -> None:
        with self._lock:
            if self._map is not None:
                self._map.close()
            if self._spool is not None:
                self._spool.close()
            self._map, self._spool = None, None
            self._have.clear()

    def _block(self, start: int, end: int) -> tuple[int, int]:
        """The head, the tail, or a block from ``start``, for a small read."""
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
