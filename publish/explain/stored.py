"""What a stored generator state tells by itself: after how many constructions of the model it stands, on which GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publish.explain.candidate import TRACKER_SEED
from publish.explain.construction import in_order
from publish.explain.cuda import advance
from publish.explain.devices import THREADS
from publish.explain.streams import CpuStream, words_for
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.randomstate import CUDA, TRACKER, RandomState, stored_states

MOST = 3  # constructions that are looked for
REACH = 1 << 32  # words of a CPU's stream that are drawn at most: 20 seconds


@dataclass(frozen=True, slots=True)
class Constructed:
    """The state is that after ``times`` constructions of the model; on a GPU, on one of ``devices``."""

    times: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredGenerator:
    """One generator in one ``mp_rank`` file. ``run_seed`` and ``constructed`` are those of the weights' generator.

    ``run_seed`` is None for the inner stages of a pipeline, whose generators are seeded otherwise.
    """

    file: int
    name: str
    state: RandomState
    run_seed: int | None = None
    constructed: tuple[Constructed, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON; the state itself is left out."""
        return {
            "mp_rank": self.file,
            "name": self.name,
            "generator": self.state.generator,
            "seed": self.state.seed,
            "offset": self.state.offset,
            "run_seed": self.run_seed,
            "constructed": [{"times": each.times, "devices": list(each.devices)} for each in self.constructed],
        }


def stored_generators(checkpoint: RawCheckpoint) -> tuple[StoredGenerator, ...]:
    """Every generator whose state a raw checkpoint holds, decoded without reading a weight.

    How often the model was constructed, and on which GPUs, follows from a CUDA offset alone.

    Raises:
        CheckpointError: a broken file.
    """
    found = []
    ranks, single = checkpoint.tensor_parallel, checkpoint.pipeline_parallel <= 1
    for number, states in enumerate(stored_states(checkpoint.files)):
        rank = number % ranks
        names = in_order(checkpoint.ranks[rank])
        elements = {name: checkpoint.ranks[rank][name].elements for name in names}
        for name, state in states.items():
            if name != TRACKER:
                found.append(StoredGenerator(number, name, state))
                continue
            seed = state.seed - TRACKER_SEED - rank
            outer = number // ranks in (0, max(1, checkpoint.pipeline_parallel) - 1)
            fits = constructed(elements, state) if single and elements and state.generator == CUDA else ()
            found.append(StoredGenerator(number, name, state, seed if outer and seed >= 0 else None, fits))
    return tuple(found)


def constructed(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    """Every number of constructions that leaves ``state``; ``elements`` are those of one rank's drawn tensors.

    No weight is needed. A CPU's stream is drawn as far as three models take, which a GPU's offset spares.
    """
    return _by_offset(elements, state) if state.generator == CUDA else _by_drawing(elements, state)


def _by_offset(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    sizes = {name: sum(advance(count, threads) for count in elements.values()) for name, threads in THREADS.items()}
    found = []
    for times in range(1, MOST + 1):
        devices = tuple(name for name, size in sizes.items() if times * size == state.offset)
        if devices:
            found.append(Constructed(times, devices))
    return tuple(found)


def _by_drawing(elements: Mapping[str, int], state: RandomState) -> tuple[Constructed, ...]:
    size = sum(words_for(count) for count in elements.values())
    stream = CpuStream(state.seed)
    within = range(1, within_reach(elements) + 1)
    return tuple(Constructed(times) for times in within if stream.state(times * size).same_place(state))


def within_reach(elements: Mapping[str, int]) -> int:
    """How many constructions are looked for on a CPU."""
    return min(MOST, REACH // sum(words_for(count) for count in elements.values()))
