"""Whether a step is published as it should be, from what its branch says of itself; pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Literal

from publish.hub import manifest
from publish.hub.branchfile import spelled
from publish.hub.checkpoints import CheckpointRecord
from publish.hub.manifest import Manifest

State = Literal["published", "stale", "missing", "foreign"]
CardOf = Callable[[Manifest], str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step must be made of. A digest that is None is not compared.

    ``files`` are the sha256 of files that all steps share: config and tokenizer. ``wording`` is a digest of what its
    card is made from besides: it only decides whether a ledger's proof still holds. ``comparisons`` are the locations
    of the models that it shall be compared with, as its manifest names them; None: any.
    """

    step: int
    branch: str
    source_commit: str | None
    plan: str | None
    files: tuple[tuple[str, str], ...] = ()
    wording: str | None = None
    comparisons: tuple[str, ...] | None = None

    @property
    def proof(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a branch's tip says of itself, and how its files differ from that.

    ``reason`` tells why it says nothing, and then there is no ``record``.
    """

    commit: str
    record: CheckpointRecord | None = None
    differences: tuple[str, ...] = ()
    empty: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step's state, why, the tip it was found at, and what that says of itself where it was read.

    ``only_card``: it is stale by its card and by nothing else.
    """

    step: int
    branch: str
    state: State
    reason: str
    commit: str | None = None
    record: CheckpointRecord | None = None
    only_card: bool = False


def judge(expected: Expected, seen: Seen | None, card_of: CardOf | None = None) -> StepStatus:
    """The state of one step; pure. ``card_of`` gives the sha256 of the card that a manifest should have."""

    def status(state: State, reason: str, only_card: bool = False) -> StepStatus:
        commit, record = (seen.commit, seen.record) if seen else (None, None)
        return StepStatus(expected.step, expected.branch, state, reason, commit, record, only_card)

    if seen is None:
        return status("missing", "there is no such branch")
    if seen.empty:
        return status("missing", "the branch is there, without a commit of its own")
    if seen.record is None:
        return status("foreign", seen.reason)
    if seen.record.step != expected.step:
        return status("foreign", f"its {manifest.NAME} says step {seen.record.step}")
    stale = _stale(expected, seen.record)
    if seen.differences:
        stale.append(f"files: {spelled(seen.differences)}")
    by_card = _stale_card(seen.record, card_of) if card_of is not None and not stale else None
    if stale or by_card:
        return status("stale", "; ".join(stale) or str(by_card), only_card=not stale)
    return status("published", "as recorded at its tip")


def _stale(expected: Expected, record: CheckpointRecord) -> list[str]:
    published = {file.path: file.sha256 for file in record.published.files} if record.published else {}
    compared = (
        ("source", expected.source_commit, record.source_commit),
        ("plan", expected.plan, record.plan),
        *((path, digest, published.get(path)) for path, digest in expected.files),
    )
    changed = [
        f"{name} {short(is_now)}, published from {short(was)}"
        for name, is_now, was in compared
        if is_now is not None and is_now != was
    ]
    return [*changed, *_other_comparisons(expected, record)]


def _other_comparisons(expected: Expected, record: CheckpointRecord) -> list[str]:
    """What the release asks to be compared and the step does not show, and the other way round; in any order."""
    if expected.comparisons is None or record.published is None:
        return []
    wanted = Counter(expected.comparisons)
    shown = Counter(each.location for each in record.published.comparisons)
    return [
        *(f"not compared with {each}" for each in sorted((wanted - shown).elements())),
        *(f"compared with {each}, which the release does not ask for" for each in sorted((shown - wanted).elements())),
    ]


def _stale_card(record: CheckpointRecord, card_of: CardOf) -> str | None:
    card = card_of(record.published) if record.published else None
    return None if card == record.card else f"card {short(card)}, published {short(record.card)}"


def short(digest: str | None) -> str:
    """The first twelve characters of a digest."""
    return digest[:12] if digest else "none"
