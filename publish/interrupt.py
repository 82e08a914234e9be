"""Time, in one place. Everything that waits waits here, so a test or a campaign can fake it here."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from publish.errors import PublishError


class Interrupted(PublishError):
    """The user asked to stop (Ctrl-C); what was in flight is abandoned."""

    exit_code = 130


def stop_if(interrupt: threading.Event | None) -> None:
    """Raise :class:`Interrupted` once the event is set."""
    if interrupt is not None and interrupt.is_set():
        raise Interrupted("interrupted", "while talking to the Hub", "run the same command again: it resumes")


class Clock(Protocol):
    """Seconds since the epoch, and a sleep that an event can end."""

    def now(self) -> float: ...

    def sleep(self, seconds: float, interrupt: threading.Event | None = None) -> None:
        """Wait; raises :class:`Interrupted` as soon as `interrupt` is set."""

    def sleep_until(self, moment: float, interrupt: threading.Event | None = None) -> None:
        """The same, until a moment that was decided upon before."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float, interrupt: threading.Event | None = None) -> None:
        stop_if(interrupt)
        if interrupt is None:
            time.sleep(max(0.0, seconds))
        elif interrupt.wait(max(0.0, seconds)):
            stop_if(interrupt)

    def sleep_until(self, moment: float, interrupt: threading.Event | None = None) -> None:
        self.sleep(moment - self.now(), interrupt)


class ManualClock:
    """A clock that only moves when somebody sleeps on it or calls :meth:`advance`.

    Threads that :meth:`sleep_until` one moment share it; :meth:`sleep` always moves on.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> float:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds

    def sleep(self, seconds: float, interrupt: threading.Event | None = None) -> None:
        self.sleep_until(self.now() + seconds, interrupt)

    def sleep_until(self, moment: float, interrupt: threading.Event | None = None) -> None:
        stop_if(interrupt)
        with self._lock:
            self.slept.append(max(0.0, moment - self._now))
            self._now = max(self._now, moment)
