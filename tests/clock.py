from __future__ import annotations

import threading

from publish.interrupt import stop_if


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

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> None:
        self.sleep_until(self.now() + seconds, stop)

    def sleep_until(self, moment: float, stop: threading.Event | None = None) -> None:
        stop_if(stop)
        with self._lock:
            self.slept.append(max(0.0, moment - self._now))
            self._now = max(self._now, moment)
