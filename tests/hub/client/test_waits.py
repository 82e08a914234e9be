from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.hub.rate_limits import parse_rate_limit, retry_after, retry_after_text

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
