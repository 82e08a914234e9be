"""Where in a CPU generator's stream tensors begin: few likely places first, then every place within reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from publish.explain import cpu_generator
from publish.explain.matching import fit
from publish.explain.streams import HEAD, CpuStream, Place, positions
from publish.explain.subject import Shard, Subject
from publish.neox.state import CPU

REACH = 1 << 26  # words of the stream that are searched at most
CONSTRUCTIONS = 3  # of the whole model, that are searched at least
_CHUNK = 1 << 18
_FIRST = 2  # values that are compared for each of many seeds


def locate(subject: Subject, seed: int) -> Iterator[Place]:
    """The place where tensors of rank 0 begin as if drawn there; none where there is no such place within reach."""
    stream = CpuStream(seed)
    shards = subject.shards[0]
    lie = positions(shards, stream)
    anchors = _anchors(tuple(shards))
    for start in likely_starts(subject):
        if any(stream.matches(shards[name], start + lie[name]) for name in anchors):
            yield Place(CPU, seed, start)
            return
    for name, found in _everywhere(seed, [shards[name] for name in anchors], reach(subject)):
        if found >= lie[name]:
            yield Place(CPU, seed, found - lie[name])
            return


def likely_starts(subject: Subject) -> tuple[int, ...]:
    """Positions after none, one and two constructions of the model, the layout's own first."""
    size = positions(subject.shards[0], CpuStream(0))[""]
    return (size, 0, 2 * size) if subject.layout == "sequential" else (0, size, 2 * size)


def reach(subject: Subject) -> int:
    """How many words are searched."""
    size = positions(subject.shards[0], CpuStream(0))[""]
    return min(CONSTRUCTIONS * size + _CHUNK, REACH)


def _anchors(names: tuple[str, ...]) -> tuple[str, ...]:
    """Few tensors that stand for all: one of them may have been changed."""
    return tuple(dict.fromkeys((names[0], names[min(1, len(names) - 1)], names[-1])))


def _everywhere(seed: int, shards: Sequence[Shard], words: int) -> Iterator[tuple[str, int]]:
    """(tensor, position) wherever one of the tensors begins in the first ``words`` of the stream."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    heads = [shard.head(HEAD[CPU]) for shard in shards]
    overlap = cpu_generator.LANE + HEAD[CPU] - 1
    kept = np.empty(0, np.float32)
    for start in range(0, words, _CHUNK):
        uniforms = np.concatenate([kept, torch.rand(_CHUNK, generator=generator).numpy()])
        normals = cpu_generator.normals_of(uniforms[: -cpu_generator.LANE], uniforms[cpu_generator.LANE :])
        for shard, head in zip(shards, heads, strict=True):
            for at in _begins(normals, head, shard):
                yield shard.name, start - kept.size + at
        kept = uniforms[-overlap:]


def _begins(normals: NDArray[np.float32], head: NDArray[np.float32], shard: Shard) -> list[int]:
    """Where ``head`` begins in ``normals``; its first or its third value must fit, then three quarters of all."""
    windows = np.lib.stride_tricks.sliding_window_view(normals, head.size)
    likely: list[int] = []
    for value in (0, 2):
        one = slice(value, value + 1)
        likely.extend(np.flatnonzero(fit(windows[:, one], head[one], shard.std, shard.dtype)).tolist())
    places = np.unique(np.array(likely, np.int64))
    found: list[int] = places[fit(windows[places], head, shard.std, shard.dtype)].tolist()
    return found


def scan(subject: Subject, seeds: NDArray[np.uint64]) -> Iterator[Place]:
    """Places of the first tensor for any of many generator seeds, after no or one construction of the model."""
    shard = subject.first
    head = shard.head(HEAD[CPU])
    for start in sorted(likely_starts(subject))[:2]:
        some = cpu_generator.heads(seeds, start, _FIRST)
        likely = seeds[fit(some, head[:_FIRST], shard.std, shard.dtype)]
        if likely.size:
            sure = likely[fit(cpu_generator.heads(likely, start, head.size), head, shard.std, shard.dtype)]
            yield from (Place(CPU, int(seed), start) for seed in sure)
