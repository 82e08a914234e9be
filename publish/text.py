"""Lists of names and counts, as sentences have them."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[object], limit: int = 4, separator: str = ", ") -> str:
    """The first ``limit`` of ``names``, and how many more there are: ``a, b and 3 more``."""
    texts = [str(name) for name in names]
    more = len(texts) - limit
    shown = separator.join(texts[:limit])
    return f"{shown} and {more:,} more" if more > 0 else shown


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: ``1 step``, ``2 steps``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
