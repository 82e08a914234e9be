from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publish.hub.rate_limits import (
    HOUR,
    MARGIN,
    CommitQuota,
    RequestQuota,
    Wait,
    parse_rate_limit,
    retry_after,
    retry_after_text,
    seconds_to_commit,
)
from tests.clock import ManualClock

HUB_TEXT = (
    "You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in about 1 hour."
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (HUB_TEXT, 3600),
        ("You can retry this action in 5 minutes.", 300),
        ("retry in about 30 minutes - 0/128 requests remaining", 1800),
        ("retry in 45 seconds", 45),
        ("retry in about an hour", 3600),
        ("Retry in a few seconds", 5),
        ("in 2 days", 172800),
        ("rate limited", None),
        ("128 per hour", None),
        ("joined 5 minutesteria", None),
    ],
)
def test_text(text: str, seconds: float | None) -> None:
    assert retry_after_text(text) == seconds


@given(st.integers(0, 10**6), st.sampled_from(["second", "minute", "hour", "day"]), st.booleans())
def test_any_count_and_unit(count: int, unit: str, about: bool) -> None:
    text = f"try again in {'about ' if about else ''}{count} {unit}{'' if count == 1 else 's'}."
    size = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit]
    assert retry_after_text(text) == count * size


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    found = retry_after({"retry-after": text, "ratelimit": text}, text, 0.0)
    assert found is None or found >= 0


@given(st.integers(0, 9999), st.integers(0, 9999), st.integers(1, 9999), st.integers(1, 9999))
def test_limit_headers(remaining: int, resets: int, quota: int, window: int) -> None:
    limit = parse_rate_limit(
        {
            "ratelimit": f'"api";r={remaining};t={resets}',
            "ratelimit-policy": f'"fixed window";"api";q={quota};w={window}',
        }
    )
    assert limit is not None
    assert (limit.name, limit.remaining, limit.resets_in) == ("api", remaining, resets)
    assert limit.quota == quota


def test_retry_after_wins_over_the_rest() -> None:
    headers = {"retry-after": "7", "ratelimit": '"api";r=0;t=120'}
    assert retry_after(headers, "in 5 minutes", 0.0) == 7


def test_retry_after_as_a_date() -> None:
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:30 GMT"}, "", 30.0) == 60


def test_a_limit_that_is_not_exhausted_does_not_hide_the_text() -> None:
    assert retry_after({"ratelimit": '"api";r=900;t=120'}, HUB_TEXT, 0.0) == 3600


def test_an_exhausted_limit_tells() -> None:
    assert retry_after({"ratelimit": '"api";r=0;t=120'}, "", 0.0) == 120


def test_saying_nothing() -> None:
    assert retry_after({}, "slow down", 0.0) is None


def headers(remaining: int, resets: int, quota: int = 1000) -> dict[str, str]:
    policy = f'"fixed window";"api";q={quota};w=300'
    return {"ratelimit": f'"api";r={remaining};t={resets}', "ratelimit-policy": policy}


def test_no_waiting_while_there_is_plenty() -> None:
    clock = ManualClock()
    quota = RequestQuota(clock, None, None)
    quota.observe("api", headers(999, 300), 0)
    for _ in range(500):
        quota.wait("api")
    assert clock.slept == []


def test_what_remains_is_spread_over_the_window() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    quota.observe("api", headers(20, 100, quota=1000), 0)
    times = []
    for _ in range(20):
        quota.wait("api")
        times.append(clock.now())
    assert times == sorted(times)
    assert times[0] == 0
    assert 60 < times[-1] < 100


def test_exhausted_waits_for_the_next_window_and_says_so() -> None:
    clock = ManualClock(0.0)
    waits: list[Wait] = []
    quota = RequestQuota(clock, waits.append, None)
    quota.observe("api", headers(0, 50), 0)
    quota.wait("api")
    assert clock.now() == 50
    assert waits == [Wait("the Hub's quota of api requests", 50)]
    quota.wait("resolve")  # another quota
    assert clock.now() == 50


def test_the_answer_to_the_request_sent_last_counts() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    first, second = quota.wait("api"), quota.wait("api")
    quota.observe("api", headers(0, 50), second)
    quota.observe("api", headers(7, 50), first)
    quota.wait("api")
    assert clock.now() == 50


@pytest.mark.parametrize("falls", [True, False])
def test_the_servers_word_is_believed(falls: bool) -> None:
    """A server whose count never falls slows nobody down: what it says is less what was sent since."""
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    for sent in range(900):
        number = quota.wait("api")
        quota.observe("api", headers(999 - sent if falls else 999, 300), number)
    assert clock.now() <= 10


def test_held_after_a_429() -> None:
    clock = ManualClock(0.0)
    quota = RequestQuota(clock, None, None)
    quota.hold("api", 10)
    quota.wait("api")
    assert clock.now() == 10


@settings(deadline=None, max_examples=30)  # it writes files
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
            quota.settle(slot, applied=True)
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
        quota.settle(quota.reserve("a/b"), applied=True)
    second.reserve("c/d")  # another repo
    assert clock.now() == 0
    waits: list[Wait] = []
    third = CommitQuota(tmp_path, "http://hub", clock, limit=3, notify=waits.append)
    third.reserve("a/b")
    assert clock.now() == HOUR + MARGIN
    assert waits == [Wait("the quota of 3 commits an hour to a/b", HOUR + MARGIN)]


def test_a_slot_given_back_is_free_again(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    quota = CommitQuota(tmp_path, "http://hub", clock, limit=1)
    quota.settle(quota.reserve("a/b"), applied=False)
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
    quota.reserve("a/b")
    assert clock.now() == HOUR + MARGIN


def test_a_clock_set_back_does_not_block_for_ever(tmp_path: Path) -> None:
    CommitQuota(tmp_path, "http://hub", ManualClock(1e6), limit=1).reserve("a/b")
    clock = ManualClock(0.0)
    CommitQuota(tmp_path, "http://hub", clock, limit=1).reserve("a/b")
    assert clock.now() <= HOUR + MARGIN


def test_a_limit_belongs_to_a_repo(tmp_path: Path) -> None:
    clock = ManualClock(0.0)
    quota = CommitQuota(tmp_path, "http://hub", clock, limit=None)
    quota.set_limit("a/b", 1)
    for _ in range(5):
        quota.settle(quota.reserve("c/d"), applied=True)
    quota.settle(quota.reserve("a/b"), applied=True)
    assert clock.now() == 0
    quota.reserve("a/b")
    assert clock.now() == HOUR + MARGIN
    assert (quota.limit_for("a/b"), quota.limit_for("c/d")) == (1, None)
