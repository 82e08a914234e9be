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
    """What one rank's tensors were found to be; ``ends`` are the generators' states afterwards, a stage each."""

    tallies: Mapping[str, Tally]
    ends: tuple[RandomState, ...]


def walk(subject: Subject, rank: int, stream: Stream, position: int, open_stream: Callable[[int], Stream]) -> Walked:
    """Draw every tensor of ``rank`` from ``stream``, whose first lies at ``position``, and compare.

    Where a pipeline may have a boundary and the values do not go on, a stage that starts its own generator
    (``open_stream`` of its seed) is looked for.
    """
    tallies: dict[str, Tally] = {}
    ends: list[RandomState] = []
    seed = stream.seed
    for shard in subject.shards[rank].values():
        if subject.stages != 1 and tallies and may_begin_a_stage(shard.name) and not stream.matches(shard, position):
            inner = seed + _INNER_STAGE + (len(ends) + 1) * subject.tensor_parallel
            for fresh in (open_stream(inner), open_stream(seed)):
                if fresh.matches(shard, 0):
                    ends.append(stream.state(position))
                    stream, position = fresh, 0
                    break
        tallies[shard.name] = stream.tally(shard, position)
        position = stream.after(shard, position)
    if ends and subject.tied:  # the last stage builds the embedding too, and then takes over the first one's values
        position = stream.after(subject.first, position)
    return Walked(tallies, (*ends, stream.state(position)))


def positions(shards: Mapping[str, Shard], stream: Stream, start: int = 0) -> dict[str, int]:
    """Where each tensor lies in the stream when the first one lies at ``start``; the end under the empty name."""
    found = {}
    for name, shard in shards.items():
        found[name] = start
        start = stream.after(shard, start)
    found[""] = start
    return found
