"""What was read of commits on a Hub, kept between runs: one file a commit, readable by its owner alone.

It saves questions and is never the truth: a file that is torn, foreign or old counts as absent, and what it says is
confirmed on the Hub before anything is made of it (`publish.sources.runs`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from publish.atomic import read_sealed, write_sealed
from publish.errors import StorageError
from publish.sources.commitreads import CommitKey, CommitReads

LARGEST = 64 << 20  # bytes of one commit; the indices of a large pipeline's layer files take about 20 MB
COMMITS = 8  # of one repo, the last written
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class KeptReads:
    """What this process has read, and what earlier ones left in ``folder``; None: nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._reads: dict[CommitKey, CommitReads] = {}

    def find(self, key: CommitKey) -> CommitReads | None:
        """What was read of a commit; None where nothing was, or a file says so that cannot be believed."""
        if key not in self._reads and (path := self._path(key)) is not None:
            content = None
            with suppress(OSError):  # a file that cannot be read costs questions
                content = read_sealed(path)
            if content is not None and (found := CommitReads.from_bytes(content, key)) is not None:
                self._reads[key] = found
        return self._reads.get(key)

    def note(self, key: CommitKey, reads: CommitReads) -> None:
        """Remember, in this process."""
        self._reads[key] = reads

    def recalled(self) -> Iterator[tuple[CommitKey, CommitReads]]:
        """What this process has from earlier ones and did not confirm."""
        yield from ((key, reads) for key, reads in self._reads.items() if reads.recalled)

    def forget(self, key: CommitKey) -> None:
        """Here and on disk.

        Raises:
            StorageError: the file cannot be removed.
        """
        del self._reads[key]
        if (path := self._path(key)) is not None:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"cannot remove: {error.strerror}", path, "remove it") from error

    def write(self) -> None:
        """Keep what this process has read anew.

        Raises:
            StorageError: the folder cannot be written.
        """
        for key, reads in self._reads.items():
            path = self._path(key)
            if path is None or not reads.grown or sum(map(len, reads.pieces.values())) > LARGEST:
                continue
            try:
                write_sealed(path, reads.to_bytes(key))
                _thin_out(path.parent)
            except OSError as error:
                raise StorageError(f"cannot write: {error.strerror}", path, "name another --work-dir") from error
            reads.grown = False

    def _path(self, key: CommitKey) -> Path | None:
        """None where nothing is kept, or under no such name: the server tells it."""
        if self.folder is None or not _COMMIT.fullmatch(key.commit):
            return None
        repo = hashlib.sha256(f"{key.endpoint}\n{key.repo}".encode()).hexdigest()[:16]
        return self.folder / repo / key.commit


def _thin_out(folder: Path) -> None:
    """Remove all but the files written last; another process may do so too."""
    by_age = sorted((path.stat().st_mtime_ns, path) for path in folder.iterdir())
    for _, path in by_age[:-COMMITS]:
        path.unlink(missing_ok=True)
