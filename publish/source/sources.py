"""The repos and folders that a release is made from, each asked once in a process what it holds."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from publish.errors import SourceError
from publish.source.checkpoints import RunSource, open_run
from publish.source.commitreads import CommitKey, CommitReads
from publish.source.kept import KeptReads
from publish.source.location import Location
from publish.source.remote import HubFiles, HubReader

if TYPE_CHECKING:
    from publish.wire.client import Client


class Sources:
    """Runs and repos as they were when this process first asked; ``client`` reads what is on a Hub.

    Where a branch is, and whether this token may see it, is always asked. What was read of the commit it leads to, by
    this process or one that left it in ``kept``, is not read again.
    """

    def __init__(self, client: Client | None = None, kept: KeptReads | None = None) -> None:
        self._given = client
        self._kept = kept or KeptReads()
        self._runs: dict[Location, RunSource] = {}

    @cached_property
    def client(self) -> Client:
        from publish.wire.client import Client as WireClient

        return self._given or WireClient()

    def run(self, location: Location) -> RunSource:
        """The run at ``location``.

        Raises:
            SourceError, HubError: as :func:`publish.source.checkpoints.open_run` does.
        """
        if location not in self._runs:
            on_hub = location.folder is None
            self._runs[location] = open_run(location, self.client if on_hub else None, self._kept)
        return self._runs[location]

    def repo(self, name: str) -> HubReader:
        """A repo on the Hub."""
        return HubReader(name, self.client, self._kept)

    def confirm(self) -> None:
        """Read on the Hub what came from earlier processes: nothing is published on the word of a file here.

        Raises:
            SourceError: the Hub has something else; the file is gone. HubError: no access, no connection.
        """
        for key, reads in tuple(self._kept.recalled()):
            if not self._is_there(key, reads):
                self._kept.forget(key)
                raise SourceError(
                    "what an earlier run read of this commit is not what the Hub holds",
                    f"{key.repo}@{key.commit}",
                    "it is forgotten now: run the same command again",
                )
            reads.recalled = False

    def keep(self) -> None:
        """Leave what was read to later processes.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._kept.write()

    def _is_there(self, key: CommitKey, reads: CommitReads) -> bool:
        reader = HubReader(key.repo, self.client)
        if reader.tree(key.commit) != reads.entries:
            return False
        files = HubFiles(self.client, key.repo, key.commit, f"{key.repo}@{key.commit}", reads.entries)
        try:
            return all(
                bytes(files.open(piece.path).read(piece.offset, piece.length)) == content
                for piece, content in reads.pieces.items()
            )
        finally:
            files.close()
