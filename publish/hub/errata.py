"""What was wrong with a branch that was already published, since which commit, and which commit replaced it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NAMED = 6  # branches spelled out in one sentence


@dataclass(frozen=True, slots=True)
class Erratum:
    """One repair of one branch. ``kinds`` are the audit's, ``detail`` says what it found.

    ``since``: the first commit with the defect; empty where the branch was missing. ``replaced_by``: the commit that
    mended it; empty for `main`, whose own commit is the one that first lists this.
    """

    branch: str
    kinds: tuple[str, ...]
    detail: str
    since: str
    replaced_by: str = ""


def sentences(errata: Iterable[Erratum]) -> tuple[str, ...]:
    """The errata for the suite's card: one sentence for all branches that had one defect."""
    groups: dict[tuple[tuple[str, ...], str], list[Erratum]] = {}
    for each in errata:
        groups.setdefault((each.kinds, each.detail), []).append(each)
    return tuple(_sentence(kinds, detail, same) for (kinds, detail), same in groups.items())


def _sentence(kinds: tuple[str, ...], detail: str, same: list[Erratum]) -> str:
    names = [each.branch for each in same]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    text = f"{', '.join(names[:NAMED])}{more} ({', '.join(kinds)}): {detail}."
    if len(same) > 1:
        return f"{text} Replaced; checkpoints.json has the commits."
    only = same[0]
    since = f"Wrong since commit {only.since[:12]}" if only.since else "It was missing"
    return f"{text} {since}" + (f", replaced by {only.replaced_by[:12]}." if only.replaced_by else ", replaced.")
