"""The governor of commits to one repo: a sliding window, remembered by all processes of one machine.

Outside fact (facts/hub-protocol.md, "Quotas"): 128 commits an hour to one repo, undocumented, told only by
the 429 that follows. A sliding window keeps under the quota whatever kind of window the Hub has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publish.wire.clock import Clock
from publish.wire.waits import Notify, Wait

PER_HOUR = 128
UNLIMITED = 10**6  # commits an hour: no one makes as many, so they are not counted
HOUR = 3600.0
LONGEST_HOLD = 24 * HOUR
MARGIN = 2.0  # the server stamps a commit a little later than we do


def seconds_to_commit(count: int, limit: int = PER_HOUR, recent: Sequence[float] = (), now: float = 0.0) -> float:
    """How long `count` commits wait for the quota, commits themselves taking no time; pure.

    `recent` are the times of commits already made.
    """
    stamps = sorted(at for at in recent if at > now - HOUR - MARGIN)
    clock = now
    for _ in range(count):
        if len(stamps) >= limit:
            clock = max(clock, stamps[-limit] + HOUR + MARGIN)
        stamps.append(clock)
    return clock - now


@dataclass(slots=True)
class _Record:
    commits: list[tuple[str, float]] = field(default_factory=list)
    held_until: float = 0.0

    def forget(self, now: float) -> None:
        """Drop what left the window; a stamp from the future (the clock was set back) counts as now."""
        stamps = ((name, min(at, now)) for name, at in self.commits)
        self.commits = [(name, at) for name, at in stamps if at > now - HOUR - MARGIN]
        self.held_until = min(self.held_until, now + LONGEST_HOLD) if self.held_until > now else 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to make one commit. Settle it with what came of it."""

    quota: CommitQuota
    repo: str
    id: str

    def settle(self, *, applied: bool) -> None:
        """`applied`: it was made, or may have been; otherwise the slot is given back."""
        self.quota.settle(self, applied=applied)


class CommitQuota:
    """Commits to repos of one endpoint. `directory` holds one small file a repo and its lock."""

    def __init__(
        self,
        directory: Path,
        endpoint: str,
        clock: Clock,
        *,
        limit: int = PER_HOUR,
        notify: Notify | None = None,
        interrupt: threading.Event | None = None,
    ) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.limit = limit
        self._clock = clock
        self._notify = notify
        self._interrupt = interrupt

    def reserve(self, repo: str) -> Slot:
        """Wait for room in the window and take it.

        Raises:
            Interrupted: the interrupt event was set while waiting.
        """
        while True:
            with self._locked(repo) as record:
                now = self._clock.now()
                free_at = record.held_until
                if len(record.commits) >= self.limit:
                    free_at = max(free_at, record.commits[-self.limit][1] + HOUR + MARGIN)
                if free_at <= now:
                    slot = Slot(self, repo, uuid.uuid4().hex)
                    if self.limit < UNLIMITED:
                        record.commits.append((slot.id, now))
                    return slot
            if self._notify is not None:
                self._notify(Wait(f"the quota of {self.limit} commits an hour to {repo}", free_at))
            self._clock.sleep_until(free_at, self._interrupt)

    def settle(self, slot: Slot, *, applied: bool) -> None:
        """Stamp the slot with the time at which the answer came, or give it back."""
        if self.limit >= UNLIMITED:
            return
        with self._locked(slot.repo) as record:
            record.commits = [entry for entry in record.commits if entry[0] != slot.id]
            if applied:
                record.commits.append((slot.id, self._clock.now()))

    def hold(self, repo: str, seconds: float) -> None:
        """No commit to this repo for so long: a 429 said so. Other processes see it too."""
        with self._locked(repo) as record:
            record.held_until = max(record.held_until, self._clock.now() + seconds)

    def recent(self, repo: str) -> tuple[float, ...]:
        """Times of the commits still in the window."""
        with self._locked(repo) as record:
            return tuple(at for _, at in record.commits)

    @contextmanager
    def _locked(self, repo: str) -> Iterator[_Record]:
        self.directory.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{self.endpoint} {repo}".encode()).hexdigest()[:24]
        with (self.directory / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
            path = self.directory / f"{name}.json"
            record = _read(path)
            before = json.dumps([record.commits, record.held_until])
            record.forget(self._clock.now())
            yield record
            record.commits.sort(key=lambda entry: entry[1])
            if json.dumps([record.commits, record.held_until]) != before:
                _write(path, record, repo)


def _read(path: Path) -> _Record:
    """What the file says. A missing or torn file counts as empty: a 429 corrects it."""
    try:
        document: Any = json.loads(path.read_text())
        commits = [(str(name), float(at)) for name, at in document["commits"]]
        return _Record(commits, float(document["held_until"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _Record()


def _write(path: Path, record: _Record, repo: str) -> None:
    document = {"repo": repo, "commits": record.commits, "held_until": record.held_until}
    temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
    temporary.write_text(json.dumps(document) + "\n")
    temporary.replace(path)
