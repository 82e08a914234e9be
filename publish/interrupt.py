"""Ctrl-C and time: the event that ends a run, the deadline that follows it, and the clock that everything waits by."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from publish.errors import PublishError


class Interrupted(PublishError):
    """The user asked to stop (Ctrl-C); what was in flight is abandoned."""

    exit_code = 130


GRACE = 5.0  # seconds from the first Ctrl-C until threads are no longer waited for


class Stop(threading.Event):
    """The event of Ctrl-C, and the one deadline that all who end their work then share."""

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None

    def set(self) -> None:
        """Ask everything to stop. The grace period starts at the first call."""
        if self._since is None:
            self._since = time.monotonic()
        super().set()

    @property
    def remaining(self) -> float:
        """Seconds of the grace period that are left, never less than 0; all of it until :meth:`set` is called."""
        if self._since is None:
            return GRACE
        return max(0.0, self._since + GRACE - time.monotonic())


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
