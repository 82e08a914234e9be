"""The files of a checkpoint as another process sees them: the one that opened them reads, and sends what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publish.sources.files import CheckpointFiles, Checksum

Ask = Callable[["Wish"], Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the borrower wants of the files: a method of :data:`METHODS` and its arguments."""

    method: str
    arguments: tuple[Any, ...] = ()

    def fulfil(self, files: CheckpointFiles) -> Any:
        """Raises: whatever the files raise."""
        return METHODS[self.method](files, *self.arguments)


METHODS: Mapping[str, Callable[..., Any]] = {
    "read": lambda files, name, offset, length: bytes(files.open(name).read(offset, length)),
    "prefetch": lambda files, name, ranges, proof: files.prefetch(name, ranges, proof),
    "digest": lambda files, name: files.digest(name),
    "bytes_read": lambda files: files.bytes_read,
}


@dataclass(frozen=True, slots=True)
class LentFiles:
    """:class:`publish.source.files.CheckpointFiles` of which every byte is asked of their owner by ``ask``."""

    where: str
    sizes: Mapping[str, int]
    ask: Ask

    @property
    def bytes_read(self) -> int:
        return int(self.ask(Wish("bytes_read")))

    def open(self, name: str) -> _LentFile:
        return _LentFile(f"{self.where}/{name}", name, self.sizes[name], self.ask)

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        self.ask(Wish("prefetch", (name, ranges, tuple(proof))))

    def digest(self, name: str) -> str | None:
        digest: str | None = self.ask(Wish("digest", (name,)))
        return digest

    def close(self) -> None:
        """Nothing to do: their owner closes them."""


@dataclass(frozen=True, slots=True)
class _LentFile:
    where: str
    name: str
    size: int
    ask: Ask

    def read(self, offset: int, length: int) -> bytes:
        data: bytes = self.ask(Wish("read", (self.name, offset, length)))
        return data
