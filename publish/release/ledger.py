"""What this machine has seen on a Hub: JSON lines in a work folder. It only saves questions.

A line is believed only for the exact commit that it names, and a commit never changes; so a ledger that is
old, torn or lost costs requests and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from publish.errors import StorageError

NAME = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The branch of `repo` had `commit` at its tip, which was proven to be what `proof` stands for.

    `proof` is a digest of all that the branch is made from (:attr:`publish.hub.status.Expected.proof`).
    """

    repo: str
    branch: str
    commit: str
    proof: str


class Ledger:
    """The entries of one file, safe to share between threads; other processes may append too."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, str], LedgerEntry] = {}
        self._load()

    def find(self, repo: str, branch: str, commit: str) -> LedgerEntry | None:
        """What was seen at this commit."""
        with self._lock:
            return self._entries.get((repo, branch, commit))

    def add(self, entry: LedgerEntry) -> None:
        """Remember, durably. A line torn by a crash before us is closed first.

        Raises:
            StorageError: the file cannot be written.
        """
        line = json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"
        with self._lock:
            if self._entries.get((entry.repo, entry.branch, entry.commit)) == entry:
                return
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(line if _ends_clean(file.fileno()) else b"\n" + line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StorageError(f"cannot write the ledger: {error}", self.path, "free space") from error
            self._entries[entry.repo, entry.branch, entry.commit] = entry

    def _load(self) -> None:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"cannot read the ledger: {error}", self.path, "check its rights") from error
        for line in lines:
            entry = _parse(line)
            if entry is not None:
                self._entries[entry.repo, entry.branch, entry.commit] = entry


def _ends_clean(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _parse(line: bytes) -> LedgerEntry | None:
    """None for a line that a crash has torn, or that another version wrote."""
    try:
        document: Any = json.loads(line)
        return LedgerEntry(**{field.name: document[field.name] for field in fields(LedgerEntry)})
    except (ValueError, KeyError, TypeError):
        return None
