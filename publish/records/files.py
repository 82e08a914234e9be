"""A file that was written or published."""

from __future__ import annotations

from dataclasses import dataclass

README = "README.md"  # a branch's card


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a folder or branch: its path there, its size in bytes, the SHA-256 of its content in hex."""

    path: str
    size: int
    sha256: str
