"""The files of a commit for a reader of what is small in them, such as indices and configs: asked for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from publish.sources.commitreads import CommitReads, Piece
from publish.sources.files import Checksum, outside

if TYPE_CHECKING:
    from publish.sources.remote import HubFiles
    from publish.sources.spool import SmallFile, SpooledFile


class IndexFiles:
    """``files`` of which ``reads`` are known already; what else is read goes there too, but for what is announced."""

    def __init__(self, files: HubFiles, reads: CommitReads) -> None:
        self._files, self._reads = files, reads
        self.where = files.where
        self.sizes: Mapping[str, int] = files.sizes

    @property
    def bytes_read(self) -> int:
        return self._files.bytes_read

    def open(self, name: str) -> IndexFile:
        return IndexFile(self._files.open(name), name, self._files.in_git(name), self._reads)

    def want(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        self._files.want(name, ranges, proof)

    def digest(self, name: str) -> str | None:
        return self._files.digest(name)

    def close(self) -> None:
        self._files.close()


class IndexFile:
    """A file of :class:`IndexFiles`; one that is ``whole`` is read and known as a whole."""

    def __init__(self, file: SmallFile | SpooledFile, name: str, whole: bool, reads: CommitReads) -> None:
        self._file, self._name, self._whole, self._reads = file, name, whole, reads
        self.where, self.size = file.where, file.size

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if not self._whole:
            return self._known(offset, length)
        if offset < 0 or length < 0 or offset + length > self.size:
            raise outside(self, offset, length)
        return self._known(0, self.size)[offset : offset + length]

    def _known(self, offset: int, length: int) -> bytes:
        piece = Piece(self._name, offset, length)
        if piece not in self._reads.pieces:
            self._reads.add(piece, bytes(self._file.read(offset, length)))
        return self._reads.pieces[piece]
