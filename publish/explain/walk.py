"""One rank's tensors in the order of construction against a stream, value by value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from publish.explain.construction import may_begin_a_stage
from publish.explain.matching import Tally
from publish.explain.streams import Stream
from publish.explain.subject import Shard, Subject
from publish.neox.randomstate import RandomState

# gpt-neox megatron/initialize.py: a pipeline's inner stages have a seed of their own, the first and last do not
_INNER_STAGE = 1138


@dataclass(frozen=True, slots=True)
class Walked:
    """What one rank's tensors were found to be.

    ``ends`` are the generators' states afterwards, one for each pipeline stage; ``begins`` names the tensors at which
    stages after the first begin.
    """

    tallies: Mapping[str, Tally]
    ends: tuple[RandomState, ...]
    begins: tuple[str, ...] = ()


def walk(subject: Subject, rank: int, stream: Stream, position: int, open_stream: Callable[[int], Stream]) -> Walked:
    """Draw every tensor of ``rank`` from ``stream``, whose first lies at ``position``, and compare.

    Where a pipeline may have a boundary and the values do not go on, a stage that starts its own generator
    (``open_stream`` of its seed) is looked for.
    """
    tallies: dict[str, Tally] = {}
    ends: list[RandomState] = []
    begins: list[str] = []
    seed = stream.seed
    for shard in subject.shards[rank].values():
        found = stream.tally(shard, position)
        if tallies and subject.stages != 1 and may_begin_a_stage(shard.name) and 2 * found.equal < found.values:
            inner = seed + _INNER_STAGE + (len(ends) + 1) * subject.tensor_parallel
            fresh = next((each for each in map(open_stream, (inner, seed)) if each.matches(shard, 0)), None)
            if fresh is not None:
                ends.append(stream.state(position))
                begins.append(shard.shown)
                stream, position = fresh, 0
                found = stream.tally(shard, position)
        tallies[shard.name] = found
        position = stream.after(shard, position)
    if ends and subject.tied:  # the last stage builds the embedding too, and then takes over the first one's values
        position = stream.after(subject.first, position)
    return Walked(tallies, (*ends, stream.state(position)), tuple(begins))


def positions(shards: Mapping[str, Shard], stream: Stream, start: int = 0) -> dict[str, int]:
    """Where each tensor lies in the stream when the first one lies at ``start``; the end under the empty name."""
    found = {}
    for name, shard in shards.items():
        found[name] = start
        start = stream.after(shard, start)
    found[""] = start
    return found
