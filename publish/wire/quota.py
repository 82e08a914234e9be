"""The governor of API requests: learns the quota from the server's headers and slows down before the wall.

Outside fact (facts/hub-protocol.md, "Quotas"): every response carries ``RateLimit: "api";r=999;t=120`` and
``RateLimit-Policy: "fixed window";"api";q=1000;w=300``; API and resolver requests count apart.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from publish.wire.clock import Clock
from publish.wire.waits import Notify, Wait, parse_limit

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
