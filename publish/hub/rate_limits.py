"""The governor of commits to one repo: a sliding window, remembered by all processes of one machine.

Outside fact (facts/hub-protocol.md, "Quotas"): 128 commits an hour to one repo, undocumented, told only by
the 429 that follows. A sliding window keeps under the quota whatever kind of window the Hub has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from publish.interrupt import Clock

# What a 429 says about how long to wait: headers and body text, pure functions.


_LIMIT = re.compile(r'"(?P<name>[^"]+)"\s*;\s*r\s*=\s*(?P<r>\d+)\s*;\s*t\s*=\s*(?P<t>\d+)')
_POLICY = re.compile(r"q\s*=\s*(?P<q>\d+).*?w\s*=\s*(?P<w>\d+)")
_TEXT = re.compile(
    r"\bin\s+(?:about\s+|approximately\s+|less than\s+)?(?P<count>\d+|an?|one|a few)\s+"
    r"(?P<unit>second|sec|minute|min|hour|day)s?\b",
    re.IGNORECASE,
)
_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86400}
_WORDS = {"a": 1, "an": 1, "one": 1, "a few": 5}


@dataclass(frozen=True, slots=True)
class Limit:
    """One ``RateLimit`` header, with its policy when the server tells it."""

    name: str
    remaining: int
    resets_in: float
    quota: int | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for, and until when (seconds since the epoch, by the client's clock)."""

    reason: str
    until: float


Notify = Callable[[Wait], None]


def parse_limit(headers: Mapping[str, str]) -> Limit | None:
    """The ``RateLimit`` and ``RateLimit-Policy`` headers; None when absent or of another form."""
    found = _LIMIT.search(headers.get("ratelimit", ""))
    if found is None:
        return None
    policy = _POLICY.search(headers.get("ratelimit-policy", ""))
    quota = int(policy["q"]) if policy else None
    window = float(policy["w"]) if policy else None
    return Limit(found["name"], int(found["r"]), float(found["t"]), quota, window)


def seconds_in_text(text: str) -> float | None:
    """ "in about 1 hour", "in 5 minutes", "in a few seconds" -> seconds; None when nothing is said."""
    found = _TEXT.search(text)
    if found is None:
        return None
    count = found["count"].lower()
    return float(_WORDS[count] if count in _WORDS else int(count)) * _UNITS[found["unit"].lower()]


def told_wait(headers: Mapping[str, str], text: str, now: float) -> float | None:
    """Seconds that a 429 asks to wait, or None when it does not say.

    `headers` must be case-insensitive or have lower-case keys. Retry-After wins (seconds or a date),
    then an exhausted RateLimit's ``t``, then the text.
    """
    retry_after = headers.get("retry-after", "").strip()
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    if retry_after:
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
        except (ValueError, TypeError, IndexError, OverflowError):
            retry_after = ""  # neither seconds nor a date: as if it were absent
    limit = parse_limit(headers)
    if limit is not None and limit.remaining == 0:
        return limit.resets_in
    return seconds_in_text(text)


# The governor of API requests: learns the quota from the server's headers and slows down before the wall.


LOW = 0.1  # below this share of the quota, what remains is spread over the rest of the window
TELL = 1.0  # waits shorter than this are not worth a word


@dataclass(slots=True)
class _Window:
    quota: int = 0
    remaining: int = 0
    resets_at: float = 0.0
    next_at: float = 0.0
    held_until: float = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next request may go; books the request."""
        wait = max(0.0, self.held_until - now)
        if now + wait >= self.resets_at or self.quota == 0:
            return wait  # a new window, or nothing known
        if self.remaining <= 0:
            return max(wait, self.resets_at - now)
        if self.remaining <= max(3, self.quota * LOW):
            start = max(now + wait, self.next_at)
            spacing = (self.resets_at - now) / (self.remaining + 1)
            self.next_at = start + spacing
            wait = start - now
        self.remaining -= 1
        return wait


class RequestQuota:
    """One per client and shared by its threads. `kind` is "api" or "resolve"."""

    def __init__(self, clock: Clock, notify: Notify | None, interrupt: threading.Event | None) -> None:
        self._clock = clock
        self._notify = notify
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def before(self, kind: str) -> None:
        """Wait until a request of this kind may go.

        Raises:
            Interrupted: the interrupt event was set while waiting.
        """
        with self._lock:
            now = self._clock.now()
            delay = self._windows.setdefault(kind, _Window()).delay(now)
        if delay <= 0:
            return
        if delay >= TELL and self._notify is not None:
            self._notify(Wait(f"the Hub's quota of {kind} requests", now + delay))
        self._clock.sleep_until(now + delay, self._interrupt)

    def observe(self, kind: str, headers: Mapping[str, str]) -> None:
        """Learn from a response's headers."""
        limit = parse_limit(headers)
        if limit is None:
            return
        with self._lock:
            now = self._clock.now()
            window = self._windows.setdefault(kind, _Window())
            resets_at = now + limit.resets_in
            same = now < window.resets_at and abs(resets_at - window.resets_at) < 3
            # answers arrive out of order: within one window the lowest count is the latest
            window.remaining = min(window.remaining, limit.remaining) if same else limit.remaining
            window.resets_at = resets_at
            window.quota = limit.quota or max(window.quota, limit.remaining)

    def hold(self, kind: str, seconds: float) -> None:
        """Let no request of this kind go for so long: a 429 said so."""
        with self._lock:
            window = self._windows.setdefault(kind, _Window())
            window.held_until = max(window.held_until, self._clock.now() + seconds)


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
