from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publish.hub.rate_limits import HOUR, MARGIN, CommitQuota, RequestQuota, Wait, seconds_to_commit
from tests.clock import ManualClock


def headers(remaining: int, resets: int, quota: int = 1000) -> dict[str, str]:
    policy = f'"fixed window";"api";q={quota};w=300'
    return {"ratelimit": f'"api";r={remaining};t={resets}', "ratelimit-policy": policy}


def test_no_waiting_while_there_is_plenty() -> None:
    clock = ManualClock()
    quota = RequestQuota(clock, None, None)
    quota.observe("api", headers(999, 300))
    for _ in range(500):
        quota.before("api")
    assert clock.slept == []


def test_what_remains_is_spread_over_the_window() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    quota.observe("api", headers(20, 100, quota=1000))
    times = []
    for _ in range(20):
        quota.before("api")
        times.append(clock.now())
    assert times == sorted(times)
    assert times[0] == 0
    assert 60 < times[-1] < 100


def test_exhausted_waits_for_the_next_window_and_says_so() -> None:
    clock = ManualClock(0.0)
    told: list[Wait] = []
    quota = RequestQuota(clock, told.append, None)
    quota.observe("api", headers(0, 50))
    quota.before("api")
    assert clock.now() == 50
    assert told == [Wait("the Hub's quota of api requests", 50)]
    quota.before("resolve")  # another quota
    assert clock.now() == 50


def test_late_answers_do_not_raise_the_count() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    quota.observe("api", headers(0, 50))
    quota.observe("api", headers(7, 50))
    quota.before("api")
    assert clock.now() == 50


def test_held_after_a_429() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    quota.hold("api", 10)
    quota.before("api")
    assert clock.now() == 10


@settings(deadline=None)  # it writes files
@given(st.integers(1, 50), st.integers(1, 120), st.lists(st.floats(0, 30), max_size=120))
def test_no_window_of_an_hour_holds_more_than_the_limit(limit: int, count: int, pauses: list[float]) -> None:
    clock = ManualClock(0.0)
    stamps: list[float] = []
    with __import__("tempfile").TemporaryDirectory() as folder:
        quota = CommitQuota(Path(folder), "http://hub", clock, limit=limit)
        for index in range(count):
            clock.advance(pauses[index] if index < len(pauses) else 0.0)
            slot = quota.reserve("a/b")
            stamps.append(clock.now())
            slot.settle(applied=True)
    for index in range(limit, len(stamps)):
        assert stamps[index] - stamps[index - limit] >= HOUR


@given(st.integers(0, 400), st.integers(1, 128))
def test_the_plan_is_what_the_governor_does(count: int, limit: int) -> None:
    planned = seconds_to_commit(count, limit)
    assert planned == pytest.approx(max(0, (count - 1) // limit) * (HOUR + MARGIN))


def test_a_second_process_sees_the_first_ones_commits(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    first = CommitQuota(tmp_path, "http://hub", clock, limit=3)
    second = CommitQuota(tmp_path, "http://hub", clock, limit=3)
    for quota in (first, second, first):
        quota.reserve("a/b").settle(applied=True)
    second.reserve("c/d")  # another repo
    assert clock.now() == 0
    told: list[Wait] = []
    third = CommitQuota(tmp_path, "http://hub", clock, limit=3, notify=told.append)
    third.reserve("a/b")
    assert clock.now() == HOUR + MARGIN
    assert told == [Wait("the quota of 3 commits an hour to a/b", HOUR + MARGIN)]


def test_a_slot_given_back_is_free_again(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    quota = CommitQuota(tmp_path, "http://hub", clock, limit=1)
    quota.reserve("a/b").settle(applied=False)
    quota.reserve("a/b")
    assert clock.now() == 0


def test_the_hold_of_a_429_is_shared(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    CommitQuota(tmp_path, "http://hub", clock).hold("a/b", 600)
    CommitQuota(tmp_path, "http://hub", clock).reserve("a/b")
    assert clock.now() == 600


def test_a_torn_file_counts_as_empty(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    quota = CommitQuota(tmp_path, "http://hub", clock, limit=1)
    quota.reserve("a/b")
    (file,) = tmp_path.glob("*.json")
    file.write_text('{"commits": [[')
    quota.reserve("a/b")
    assert clock.now() == 0
    assert len(quota.recent("a/b")) == 1


def test_a_clock_set_back_does_not_block_for_ever(tmp_path: Path) -> None:
    CommitQuota(tmp_path, "http://hub", ManualClock(1e6), limit=1).reserve("a/b")
    clock = ManualClock(0.0)
    CommitQuota(tmp_path, "http://hub", clock, limit=1).reserve("a/b")
    assert clock.now() <= HOUR + MARGIN
