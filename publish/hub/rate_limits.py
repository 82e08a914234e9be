"""A Hub's rate limits: what a server says about them, the quota of requests, and the quota of commits.

Outside facts: docs/hub-protocol.md, "Quotas".
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from publish.atomic import write_atomic
from publish.interrupt import Clock
from publish.locks import locked


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that the user should know of: its reason, and when it ends (seconds since the epoch)."""

    reason: str
    until: float


Notify = Callable[[Wait], None]

# What a server says: headers and text.

_LIMIT = re.compile(r'"(?P<name>[^"]+)"\s*;\s*r\s*=\s*(?P<r>\d+)\s*;\s*t\s*=\s*(?P<t>\d+)')
_POLICY_QUOTA = re.compile(r"\bq\s*=\s*(?P<q>\d+)")
_TEXT = re.compile(
    r"\bin\s+(?:about\s+|approximately\s+|less than\s+)?(?P<count>\d+|an?|one|a few)\s+"
    r"(?P<unit>second|sec|minute|min|hour|day)s?\b",
    re.IGNORECASE,
)
_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86400}
_WORDS = {"a": 1, "an": 1, "one": 1, "a few": 5}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A ``RateLimit`` header: requests left in the window, seconds until it ends, and the quota if it is known."""

    name: str
    remaining: int
    resets_in: float
    quota: int | None = None


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """The ``RateLimit`` and ``RateLimit-Policy`` headers; None if they are absent or of another form.

    `headers` must be case-insensitive or have lower-case keys.
    """
    found = _LIMIT.search(headers.get("ratelimit", ""))
    if found is None:
        return None
    policy = _POLICY_QUOTA.search(headers.get("ratelimit-policy", ""))
    return RateLimit(found["name"], int(found["r"]), float(found["t"]), int(policy["q"]) if policy else None)


def retry_after_text(text: str) -> float | None:
    """Seconds that a message asks to wait ("in about 1 hour", "in 5 minutes"); None if it does not say."""
    found = _TEXT.search(text)
    if found is None:
        return None
    count = found["count"].lower()
    return float(_WORDS[count] if count in _WORDS else int(count)) * _UNITS[found["unit"].lower()]


def retry_after(headers: Mapping[str, str], text: str, now: float) -> float | None:
    """Seconds that a 429 asks to wait; None if it does not say.

    ``Retry-After`` (seconds or a date) comes first, then an exhausted ``RateLimit``, then the text of the answer.
    `headers` must be case-insensitive or have lower-case keys.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, TypeError, IndexError, OverflowError):
            value = ""  # neither seconds nor a date: as if the header were absent
    limit = parse_rate_limit(headers)
    if limit is not None and limit.remaining == 0:
        return limit.resets_in
    return retry_after_text(text)


# The quota of requests, learned from the headers of every answer.

LOW = 0.1  # below this share of the quota, what is left is spread over the rest of the window
NOTABLE = 1.0  # seconds; shorter waits are not reported


@dataclass(slots=True)
class _Window:
    """What the server said in its answer to request number ``answered``, and how many were sent since."""

    quota: int = 0
    remaining: int = 0
    resets_at: float = 0.0
    sent: int = 0
    answered: int = 0
    next_at: float = 0.0
    held_until: float = 0.0

    def take(self, now: float) -> float:
        """Take a request out of the window, and return the seconds that it has to wait."""
        remaining = self.remaining - (self.sent - self.answered)
        self.sent += 1
        wait = max(0.0, self.held_until - now)
        if now + wait >= self.resets_at or self.quota == 0:
            return wait  # a new window, or nothing is known yet
        if remaining <= 0:
            return max(wait, self.resets_at - now)
        if remaining <= max(3, self.quota * LOW):
            start = max(now + wait, self.next_at)
            spacing = (self.resets_at - now) / (remaining + 1)
            self.next_at = start + spacing
            wait = start - now
        return wait


class RequestQuota:
    """Slows requests down before the quota is exhausted. Shared by a client's threads; `kind` is api or resolve."""

    def __init__(self, clock: Clock, notify: Notify | None, stop: threading.Event | None) -> None:
        self._clock = clock
        self._notify = notify
        self._stop = stop
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def wait(self, kind: str) -> int:
        """Wait until a request of this kind may be sent, and return the number of this request.

        Raises:
            Interrupted: the stop event was set while waiting.
        """
        with self._lock:
            now = self._clock.now()
            window = self._windows.setdefault(kind, _Window())
            seconds = window.take(now)
            number = window.sent
        if seconds >= NOTABLE and self._notify is not None:
            self._notify(Wait(f"the Hub's quota of {kind} requests", now + seconds))
        if seconds > 0:
            self._clock.sleep_until(now + seconds, self._stop)
        return number

    def observe(self, kind: str, headers: Mapping[str, str], number: int) -> None:
        """Learn from the headers of the answer to request ``number``.

        Answers arrive out of order: the last word is the answer to the request that was sent last.
        """
        limit = parse_rate_limit(headers)
        if limit is None:
            return
        with self._lock:
            window = self._windows.setdefault(kind, _Window())
            if number < window.answered:
                return
            window.answered, window.remaining = number, limit.remaining
            window.resets_at = self._clock.now() + limit.resets_in
            window.quota = limit.quota or max(window.quota, limit.remaining)

    def hold(self, kind: str, seconds: float) -> None:
        """Send no request of this kind for so long, because a 429 said so."""
        with self._lock:
            window = self._windows.setdefault(kind, _Window())
            window.held_until = max(window.held_until, self._clock.now() + seconds)


# The quota of commits: a sliding window for each repo, which stays below the limit whatever kind of window the Hub has.

PER_HOUR = 128
HOUR = 3600.0
LONGEST_HOLD = 24 * HOUR
MARGIN = 2.0  # seconds; the server stamps a commit a little later than this machine


def seconds_to_commit(count: int, limit: int = PER_HOUR, recent: Sequence[float] = (), now: float = 0.0) -> float:
    """How many seconds `count` commits wait for the quota, if commits themselves take no time.

    `recent` are the times of commits that were already made.
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
    """What is known of the commits to one repo: (slot, time) of each within the window."""

    commits: list[tuple[str, float]] = field(default_factory=list)
    held_until: float = 0.0

    def expire(self, now: float) -> None:
        """Drop what has left the window. A time in the future (the clock was set back) counts as now."""
        stamps = ((slot, min(at, now)) for slot, at in self.commits)
        self.commits = [(slot, at) for slot, at in stamps if at > now - HOUR - MARGIN]
        self.held_until = min(self.held_until, now + LONGEST_HOLD) if self.held_until > now else 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to make one commit to `repo`; give it to :meth:`CommitQuota.settle`."""

    repo: str
    id: str


class CommitQuota:
    """The quota of commits to each repo of one endpoint, shared by all processes of this machine.

    `directory` holds a small file and a lock for each repo. `limit` is how many commits an hour a repo gets unless
    :meth:`set_limit` says otherwise; None: no limit.
    """

    def __init__(
        self,
        directory: Path,
        endpoint: str,
        clock: Clock,
        *,
        limit: int | None = PER_HOUR,
        notify: Notify | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self._limit = limit
        self._limits: dict[str, int] = {}
        self._clock = clock
        self._notify = notify
        self._stop = stop

    def set_limit(self, repo: str, per_hour: int) -> None:
        """Let this process make so many commits an hour to `repo`."""
        self._limits[repo] = per_hour

    def limit_for(self, repo: str) -> int | None:
        """Commits an hour to `repo`; None: no limit."""
        return self._limits.get(repo, self._limit)

    def reserve(self, repo: str) -> Slot:
        """Wait until one more commit to `repo` is within the quota, and count it.

        Raises:
            Interrupted: the stop event was set while waiting.
        """
        limit = self.limit_for(repo)
        while True:
            with self._record(repo) as record:
                now = self._clock.now()
                free_at = record.held_until
                if limit is not None and len(record.commits) >= limit:
                    free_at = max(free_at, record.commits[-limit][1] + HOUR + MARGIN)
                if free_at <= now:
                    slot = Slot(repo, uuid.uuid4().hex)
                    if limit is not None:
                        record.commits.append((slot.id, now))
                    return slot
            if self._notify is not None:
                reason = f"the quota of {limit} commits an hour" if limit is not None else "the Hub's quota of commits"
                self._notify(Wait(f"{reason} to {repo}", free_at))
            self._clock.sleep_until(free_at, self._stop)

    def settle(self, slot: Slot, *, applied: bool) -> None:
        """Say what became of a slot. `applied`: the commit was made, or may have been; if not, the slot is free again.

        An applied one is counted from now on: the server stamps a commit when it ends.
        """
        if self.limit_for(slot.repo) is None:
            return
        with self._record(slot.repo) as record:
            record.commits = [entry for entry in record.commits if entry[0] != slot.id]
            if applied:
                record.commits.append((slot.id, self._clock.now()))

    def hold(self, repo: str, seconds: float) -> None:
        """Make no commit to `repo` for so long, in any process, because a 429 said so."""
        with self._record(repo) as record:
            record.held_until = max(record.held_until, self._clock.now() + seconds)

    @contextmanager
    def _record(self, repo: str) -> Iterator[_Record]:
        """The repo's record, locked; what is changed in it is written."""
        self.directory.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{self.endpoint} {repo}".encode()).hexdigest()[:24]
        path = self.directory / f"{name}.json"
        with locked(path.with_suffix(".lock")):
            record = _read(path)
            before = _document(record, repo)
            record.expire(self._clock.now())
            yield record
            record.commits.sort(key=lambda entry: entry[1])
            if (after := _document(record, repo)) != before:
                write_atomic(path, after.encode())


def _document(record: _Record, repo: str) -> str:
    return json.dumps({"repo": repo, "commits": record.commits, "held_until": record.held_until}) + "\n"


def _read(path: Path) -> _Record:
    """The record in a file. A missing or damaged file counts as empty: a 429 then corrects it."""
    try:
        document: Any = json.loads(path.read_text())
        commits = [(str(slot), float(at)) for slot, at in document["commits"]]
        return _Record(commits, float(document["held_until"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _Record()
