"""Ctrl-C and time: the event that ends a run, the deadline that follows it, and the clock that everything waits by."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from publish.errors import PublishError

GRACE = 5.0  # seconds from the first Ctrl-C until threads are no longer waited for


class Interrupted(PublishError):
    """The user asked to stop (Ctrl-C). Work in flight is abandoned."""

    exit_code = 130


class Stop(threading.Event):
    """The event that Ctrl-C sets, and the one deadline of everyone who then ends their work."""

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
        """Seconds left of the grace period: all of it until :meth:`set` is called, never less than 0."""
        if self._since is None:
            return GRACE
        return max(0.0, self._since + GRACE - time.monotonic())


def stop_if(stop: threading.Event | None) -> None:
    """Raise :class:`Interrupted` once the event is set."""
    if stop is not None and stop.is_set():
        raise Interrupted("interrupted", "Ctrl-C", "run the same command again: it resumes")


class Clock(Protocol):
    """Seconds since the epoch, and a sleep that an event ends. A test replaces it."""

    def now(self) -> float: ...

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> None:
        """Wait. Raises :class:`Interrupted` as soon as `stop` is set."""

    def sleep_until(self, moment: float, stop: threading.Event | None = None) -> None:
        """Wait until `moment`, in seconds since the epoch; returns at once if it has passed."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> None:
        stop_if(stop)
        if stop is None:
            time.sleep(max(0.0, seconds))
        elif stop.wait(max(0.0, seconds)):
            stop_if(stop)

    def sleep_until(self, moment: float, stop: threading.Event | None = None) -> None:
        self.sleep(moment - self.now(), stop)
