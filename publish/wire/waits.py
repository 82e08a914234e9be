"""What a 429 says about how long to wait: headers and body text, pure functions.

Outside facts (facts/hub-protocol.md, "Quotas"): API quotas come as ``RateLimit: "api";r=0;t=120``; the quota
of commits to one repo comes only as text, "You can retry this action in about 1 hour", with the API
counter not exhausted, so ``t`` counts only when ``r`` is 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_LIMIT = re.compile(r'"(?P<name>[^"]+)"\s*;\s*r\s*=\s*(?P<r>\d+)\s*;\s*t\s*=\s*(?P<t>\d+)')
_POLICY = re.compile(r"q\s*=\s*(?P<q>\d+).*?w\s*=\s*(?P<w>\d+)")
_TEXT = re.compile(
    r"\bin\s+(?:about\s+|approximately\s+|less than\s+)?(?P<count>\d+|an?|one|a few)\s+"
    r"(?P<unit>second|sec|minute|min|hour|day)s?\b",
    re.IGNORECASE,
)
_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86400}
_WORDS = {"a": 1, "an": 1, "one": 1, "a few": 5}


@dataclass(frozen=True, slots=True)
class Limit:
    """One ``RateLimit`` header, with its policy when the server tells it."""

    name: str
    remaining: int
    resets_in: float
    quota: int | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for, and until when (seconds since the epoch, by the client's clock)."""

    reason: str
    until: float


Notify = Callable[[Wait], None]


def parse_limit(headers: Mapping[str, str]) -> Limit | None:
    """The ``RateLimit`` and ``RateLimit-Policy`` headers; None when absent or of another form."""
    found = _LIMIT.search(headers.get("ratelimit", ""))
    if found is None:
        return None
    policy = _POLICY.search(headers.get("ratelimit-policy", ""))
    quota = int(policy["q"]) if policy else None
    window = float(policy["w"]) if policy else None
    return Limit(found["name"], int(found["r"]), float(found["t"]), quota, window)


def seconds_in_text(text: str) -> float | None:
    """ "in about 1 hour", "in 5 minutes", "in a few seconds" -> seconds; None when nothing is said."""
    found = _TEXT.search(text)
    if found is None:
        return None
    count = found["count"].lower()
    return float(_WORDS[count] if count in _WORDS else int(count)) * _UNITS[found["unit"].lower()]


def told_wait(headers: Mapping[str, str], text: str, now: float) -> float | None:
    """Seconds that a 429 asks to wait, or None when it does not say.

    `headers` must be case-insensitive or have lower-case keys. Retry-After wins (seconds or a date),
    then an exhausted RateLimit's ``t``, then the text.
    """
    retry_after = headers.get("retry-after", "").strip()
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    if retry_after:
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
        except (ValueError, TypeError, IndexError, OverflowError):
            retry_after = ""  # neither seconds nor a date: as if it were absent
    limit = parse_limit(headers)
    if limit is not None and limit.remaining == 0:
        return limit.resets_in
    return seconds_in_text(text)
