"""What was read of one commit on a Hub, as it is kept in a file. A commit never changes, so neither does this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from publish.hub.reads import TreeEntry, git_blob_sha1

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class CommitKey:
    """Which commit, on which Hub."""

    endpoint: str
    repo: str
    commit: str


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes at ``offset`` of the file at ``path``."""

    path: str
    offset: int
    length: int


@dataclass(slots=True)
class CommitReads:
    """The files of a commit and what was read of them: of a git blob the whole, of a file in LFS some pieces.

    ``recalled``: an earlier run left it here, and nobody has confirmed it since. ``grown``: there is more than that.
    """

    entries: tuple[TreeEntry, ...]
    pieces: dict[Piece, bytes] = field(default_factory=dict)
    recalled: bool = False
    grown: bool = True

    def add(self, piece: Piece, content: bytes) -> None:
        """Note what was read."""
        self.pieces[piece] = content
        self.grown = True

    def to_bytes(self, key: CommitKey) -> bytes:
        """A line of JSON, then the pieces in the order that it names."""
        about = {
            "schema": SCHEMA,
            "key": astuple(key),
            "entries": [astuple(entry) for entry in self.entries],
            "pieces": [astuple(piece) for piece in self.pieces],
        }
        return b"".join((json.dumps(about).encode(), b"\n", *self.pieces.values()))

    @classmethod
    def from_bytes(cls, content: bytes, key: CommitKey) -> CommitReads | None:
        """As an earlier run left it; None for another commit or version, or where a digest says otherwise."""
        line, _, rest = content.partition(b"\n")
        try:
            about: Any = json.loads(line)
            if (about["schema"], about["key"]) != (SCHEMA, list(astuple(key))):
                return None
            entries = tuple(_entry(*item) for item in about["entries"])
            pieces = dict(_cut([_piece(*item) for item in about["pieces"]], rest))
            _check(entries, pieces)
        except (ValueError, TypeError, KeyError):
            return None
        return cls(entries, pieces, recalled=True, grown=False)


def _entry(path: object, size: object, oid: object, sha256: object) -> TreeEntry:
    if isinstance(path, str) and type(size) is int and isinstance(oid, str) and isinstance(sha256, str | None):
        return TreeEntry(path, size, oid, sha256)
    raise ValueError("no entry of a tree")


def _piece(path: object, offset: object, length: object) -> Piece:
    if isinstance(path, str) and type(offset) is int and type(length) is int and min(offset, length) >= 0:
        return Piece(path, offset, length)
    raise ValueError("no piece of a file")


def _cut(pieces: Sequence[Piece], content: bytes) -> Iterator[tuple[Piece, bytes]]:
    if sum(piece.length for piece in pieces) != len(content):
        raise ValueError("more or fewer bytes than the pieces have")
    at = 0
    for piece in pieces:
        yield piece, content[at : at + piece.length]
        at += piece.length


def _check(entries: Sequence[TreeEntry], pieces: Mapping[Piece, bytes]) -> None:
    """Raise ValueError or KeyError where a piece is none of its file, or a whole file not what its digest says."""
    files = {entry.path: entry for entry in entries}
    for piece, content in pieces.items():
        entry = files[piece.path]
        whole = (piece.offset, piece.length) == (0, entry.size)
        if piece.offset + piece.length > entry.size or (entry.lfs_sha256 is None and not whole):
            raise ValueError("a piece that its file does not have")
        if entry.lfs_sha256 is None:
            right = git_blob_sha1(content) == entry.oid
        else:
            right = not whole or hashlib.sha256(content).hexdigest() == entry.lfs_sha256
        if not right:
            raise ValueError("other bytes than the file's digest says")
