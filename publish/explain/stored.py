"""What a stored generator state tells by itself: after how many constructions of the model it stands, on which GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from publish.explain.cuda import advance
from publish.explain.devices import THREADS
from publish.explain.streams import CpuStream, words_for
from publish.neox.randomstate import CUDA, RandomState

MOST = 3  # constructions that are looked for
_REACH = 1 << 28  # words of a CPU's stream


@dataclass(frozen=True, slots=True)
class Constructed:
    """The state is that after ``times`` constructions of the model; on a GPU, on one of ``devices``."""

    times: int
    devices: tuple[str, ...] = ()


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
    return tuple(
        Constructed(times)
        for times in range(1, MOST + 1)
        if times * size <= _REACH and stream.state(times * size).same_place(state)
    )
