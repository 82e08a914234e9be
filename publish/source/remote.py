"""Raw checkpoints on a Hub: files of one commit, fetched by range into a sparse spool, every byte once.

What is asked for is fetched once and kept in a temporary sparse file, so a gate that looks at a weight again costs
no second download. Small reads at a file's head and tail fetch a block, which holds the whole index.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from publish.errors import SourceError
from publish.source.commitreads import CommitKey, CommitReads
from publish.source.files import ByteCount, Checksum
from publish.source.index import IndexFiles
from publish.source.kept import KeptReads
from publish.source.spool import SmallFile, SpooledFile

if TYPE_CHECKING:
    from publish.source.streamed import StreamedFiles
    from publish.wire.client import Client
    from publish.wire.repo import TreeEntry


class HubReader:
    """One raw-checkpoint repo on a Hub. ``kept``: what was read of its commits before, and is read now."""

    def __init__(self, repo: str, client: Client | None = None, kept: KeptReads | None = None) -> None:
        from publish.wire.client import Client as WireClient

        self.repo = repo
        self.client = client or WireClient()
        self._kept = kept or KeptReads()

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

    def tree(self, commit: str) -> tuple[TreeEntry, ...]:
        """What the Hub lists at ``commit``; a request per 1000 files."""
        from publish.wire.repo import list_tree

        return list_tree(self.client, self.repo, commit)

    def files(self, commit: str, where: str) -> HubFiles:
        """The files of ``commit``."""
        return HubFiles(self.client, self.repo, commit, where, self.tree(commit))

    def index(self, commit: str, where: str) -> IndexFiles:
        """The files of ``commit`` for a reader of what is small in them; what was read before is not asked for."""
        key = CommitKey(self.client.endpoint.url, self.repo, commit)
        reads = self._kept.find(key)
        if reads is None:
            reads = CommitReads(self.tree(commit))
            self._kept.note(key, reads)
        return IndexFiles(HubFiles(self.client, self.repo, commit, where, reads.entries), reads)

    def stream(self, commit: str, where: str) -> StreamedFiles:
        """The files of ``commit`` for a reader that passes over them once; nothing is kept on disk."""
        from publish.source.streamed import StreamedFiles

        return StreamedFiles(self.client, self.repo, commit, where, self.tree(commit))


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
        from publish.wire.download import fetch_file
        from publish.wire.ranges import RemoteFile

        where = f"{self.where}/{entry.path}"
        if entry.lfs_sha256 is None:  # a git blob: small, and proven by its id
            fetch = partial(fetch_file, self._client, self._repo, self._commit, entry)
            return SmallFile(fetch, where, entry.size, self._counter)
        return SpooledFile(
            RemoteFile(self._client, self._repo, self._commit, entry.path, entry.size), where, self._counter
        )

    def want(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        """Fetch ``(offset, length)`` ranges now, neighbours together, and prove them."""
        file = self.open(name)
        if isinstance(file, SpooledFile):
            file.fetch(ranges, proof)

    def in_git(self, name: str) -> bool:
        """Whether git holds the file itself, not LFS: it is fetched as a whole, and proven."""
        return self._entries[name].lfs_sha256 is None

    def digest(self, name: str) -> str | None:
        entry = self._entries[name]
        return f"sha256:{entry.lfs_sha256}" if entry.lfs_sha256 else f"git:{entry.oid}"

    def close(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
