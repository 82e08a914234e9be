"""A checkpoint whose reading ends as soon as somebody asks to stop: whatever a step does, it reads all along."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from publish.interrupt import stop_if
from publish.sources.files import CheckpointFile, CheckpointFiles, Checksum


@dataclass(frozen=True, slots=True)
class StoppingFiles:
    """:class:`publish.source.files.CheckpointFiles` that raise Interrupted once ``stop`` is set."""

    files: CheckpointFiles
    stop: threading.Event

    @property
    def where(self) -> str:
        return self.files.where

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.files.sizes

    @property
    def bytes_read(self) -> int:
        return self.files.bytes_read

    def open(self, name: str) -> _StoppingFile:
        return _StoppingFile(self.files.open(name), self.stop)

    def prefetch(self, name: str, ranges: list[tuple[int, int]], proof: Sequence[Checksum] = ()) -> None:
        stop_if(self.stop)
        self.files.prefetch(name, ranges, proof)

    def digest(self, name: str) -> str | None:
        return self.files.digest(name)

    def close(self) -> None:
        self.files.close()


@dataclass(frozen=True, slots=True)
class _StoppingFile:
    file: CheckpointFile
    stop: threading.Event

    @property
    def size(self) -> int:
        return self.file.size

    @property
    def where(self) -> str:
        return self.file.where

    def read(self, offset: int, length: int) -> bytes | memoryview:
        stop_if(self.stop)
        return self.file.read(offset, length)
