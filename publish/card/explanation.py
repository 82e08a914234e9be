"""What a card states of the random state that made the initial weights, where every value was reproduced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publish.card.fact import Fact
from publish.explain.answer import REPRODUCED, Answer, Origin
from publish.neox.randomstate import CPU

_SOURCE = "recomputed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation in a sentence, and its figures; plain data, as all that a card states."""

    summary: str
    rows: tuple[Fact, ...]


def explanation(answer: Answer) -> Explanation | None:
    """What to state of ``answer``; None unless all of it was reproduced."""
    origin = answer.origin
    if answer.outcome != REPRODUCED or origin is None:
        return None
    device = "a CPU" if origin.generator == CPU else "a GPU"
    summary = (
        f"The initial weights were recomputed from seed {origin.seed}: they are what torch's generator on {device} "
        f"draws in GPT-NeoX's order of construction, value by value."
    )
    return Explanation(summary, tuple(_rows(answer, origin)))


def _rows(answer: Answer, origin: Origin) -> Iterator[Fact]:
    yield Fact("Random tensors", f"{answer.tensors:,}, all reproduced", _SOURCE)
    yield Fact("Values", f"{answer.bit_equal:,} of {answer.values:,} equal in every bit", _SOURCE)
    if answer.within_one_ulp != answer.bit_equal:
        yield Fact("Within one unit in the last place", f"{answer.within_one_ulp:,}", _SOURCE)
    seeds = ", ".join(map(str, origin.seeds))
    yield Fact("Generator", f"{origin.generator}, seeded with {seeds}", _SOURCE)
    yield Fact("Drawn before", origin.preceding, _SOURCE)
    if origin.devices:
        threads = f"{origin.threads:,} threads" if origin.threads is not None else "any of many"
        yield Fact("GPU", f"{' or '.join(origin.devices)} ({threads})", _SOURCE)
    yield Fact("Generator's stored state afterwards", answer.stored_state, "checkpoint")
