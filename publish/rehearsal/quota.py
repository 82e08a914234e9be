"""Request quotas as the Hub announces them: a fixed window a token, told on every response, enforced on demand.

Outside facts (facts/hub-protocol.md, "Quotas"): windows of 300 s; ``RateLimit: "api";r=..;t=..`` and
``RateLimit-Policy: "fixed window";"api";q=..;w=300``; downloads through /resolve/ are counted apart.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a window and token. ``enforced``: whether going over is answered 429, or only told."""

    api: int = 1000
    resolvers: int = 5000
    enforced: bool = False

    def of(self, group: str) -> int:
        return self.resolvers if group == "resolvers" else self.api


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a token stands in its window."""

    group: str
    limit: int
    remaining: int
    seconds_left: int
    exceeded: bool

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit": f'"{self.group}";r={self.remaining};t={self.seconds_left}',
            "RateLimit-Policy": f'"fixed window";"{self.group}";q={self.limit};w={WINDOW}',
        }


class Quota:
    """Counts requests. ``now`` is the clock, injected. Safe to share between threads."""

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.limits = limits
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def count(self, key: str, group: str, requests: int = 1) -> Standing:
        """Count requests of the token ``key``. A window begins with its first request."""
        limit = self.limits.of(group)
        with self._lock:
            now = self._now()
            started, used = self._windows.get((key, group), (now, 0))
            if now >= started + WINDOW or now < started:
                started, used = now, 0
            used += requests
            self._windows[key, group] = (started, used)
        left = max(1, math.ceil(started + WINDOW - now))
        return Standing(group, limit, max(0, limit - used), left, self.limits.enforced and used > limit)
