from __future__ import annotations

import pickle
import threading
import time

import pytest

from publish.interrupt import GRACE, Interrupted, Stop, SystemClock
from tests.clock import ManualClock


def test_system_sleep_ends_when_interrupted() -> None:
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        SystemClock().sleep(30, event)
    assert time.monotonic() - start < 5


def test_interrupted_exits_as_ctrl_c_does() -> None:
    assert Interrupted.exit_code == 130
    assert str(pickle.loads(pickle.dumps(Interrupted("a", "b", "c")))) == str(Interrupted("a", "b", "c"))


def test_manual_clock_moves_only_by_sleeping() -> None:
    clock = ManualClock(100.0)
    clock.sleep(30)
    clock.advance(5)
    assert clock.now() == 135
    assert clock.slept == [30]


def test_manual_clock_heeds_the_interrupt() -> None:
    event = threading.Event()
    event.set()
    with pytest.raises(Interrupted):
        ManualClock().sleep(1, event)


def test_a_moment_is_shared() -> None:
    clock = ManualClock(0.0)
    clock.sleep_until(50)
    clock.sleep_until(50)
    assert (clock.now(), clock.slept) == (50, [50, 0])


def test_system_sleep_until() -> None:
    clock = SystemClock()
    start = clock.now()
    clock.sleep_until(start + 0.02)
    clock.sleep_until(start)
    assert 0.02 <= clock.now() - start < 5


def test_one_deadline_for_all_who_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("publish.interrupt.time.monotonic", lambda: now[0])
    stop = Stop()
    assert (stop.is_set(), stop.remaining) == (False, GRACE)
    now[0] = 200.0
    stop.set()
    now[0] = 203.0
    stop.set()  # a second Ctrl-C gives no more time
    assert (stop.is_set(), stop.remaining) == (True, GRACE - 3)
    now[0] = 300.0
    assert stop.remaining == 0
