"""Where in a generator's stream the tensors of a model begin.

A CPU's position counts 32-bit words of its stream; a GPU's is the generator's offset, and the number of threads follows
from where the second values of the threads are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from publish.explain import generators
from publish.explain.models import InitialModel, Shard
from publish.explain.streams import HEAD, CpuStream, CudaStream, StreamPosition, fit, positions
from publish.formats.dtypes import to_float32
from publish.neox.state import CPU, CUDA


def locate(model: InitialModel, generator: str, seed: int) -> Iterator[StreamPosition]:
    """Positions that fit the first values of tensors of rank 0; on a GPU, the best supported thread count first."""
    return _locate_on_cpu(model, seed) if generator == CPU else _locate_on_gpu(model, seed)


def scan(model: InitialModel, generator: str, seeds: NDArray[np.uint64]) -> Iterator[StreamPosition]:
    """Positions that fit the first tensor for any of many generator seeds; only the likeliest positions are tried."""
    return _scan_on_cpu(model, seeds) if generator == CPU else _scan_on_gpu(model, seeds)


# ---- CPU

CPU_REACH = 1 << 26  # words of the stream that are searched at most
CPU_CONSTRUCTIONS = 3  # constructions of the whole model that are searched, within that
_CPU_CHUNK = 1 << 18
_CPU_FIRST = 2  # values that are compared for each of many seeds


def likely_starts(model: InitialModel) -> tuple[int, ...]:
    """Positions after none, one and two constructions of the model, that of the model's own layout first."""
    size = positions(model.shards[0], CpuStream(0))[""]
    return (size, 0, 2 * size) if model.layout == "sequential" else (0, size, 2 * size)


def cpu_reach(model: InitialModel) -> int:
    """How many words are searched."""
    size = positions(model.shards[0], CpuStream(0))[""]
    return min(CPU_CONSTRUCTIONS * size + _CPU_CHUNK, CPU_REACH)


def _locate_on_cpu(model: InitialModel, seed: int) -> Iterator[StreamPosition]:
    stream = CpuStream(seed)
    shards = model.shards[0]
    offsets = positions(shards, stream)
    anchors = _anchors(tuple(shards))
    for start in likely_starts(model):
        if any(stream.matches(shards[name], start + offsets[name]) for name in anchors):
            yield StreamPosition(CPU, seed, start)
            return
    for name, found in _search_words(seed, [shards[name] for name in anchors], cpu_reach(model)):
        if found >= offsets[name]:
            yield StreamPosition(CPU, seed, found - offsets[name])
            return


def _anchors(names: tuple[str, ...]) -> tuple[str, ...]:
    """Three tensors that stand for all: one of them may have been changed."""
    return tuple(dict.fromkeys((names[0], names[min(1, len(names) - 1)], names[-1])))


def _search_words(seed: int, shards: Sequence[Shard], words: int) -> Iterator[tuple[str, int]]:
    """(tensor, position) wherever the first values of a tensor fit in the first ``words`` of the stream."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    heads = [shard.head(HEAD[CPU]) for shard in shards]
    overlap = generators.LANE + HEAD[CPU] - 1
    kept = np.empty(0, np.float32)
    for start in range(0, words, _CPU_CHUNK):
        uniforms = np.concatenate([kept, torch.rand(_CPU_CHUNK, generator=generator).numpy()])
        normals = generators.cpu_normals(uniforms[: -generators.LANE], uniforms[generators.LANE :])
        for shard, head in zip(shards, heads, strict=True):
            for at in _find_head(normals, head, shard):
                yield shard.name, start - kept.size + at
        kept = uniforms[-overlap:]


def _find_head(normals: NDArray[np.float32], head: NDArray[np.float32], shard: Shard) -> list[int]:
    """Where ``head`` fits in ``normals``: its first or its third value must, then three quarters of all."""
    windows = np.lib.stride_tricks.sliding_window_view(normals, head.size)
    likely: list[int] = []
    for value in (0, 2):
        one = slice(value, value + 1)
        likely.extend(np.flatnonzero(fit(windows[:, one], head[one], shard.std, shard.dtype)).tolist())
    candidates = np.unique(np.array(likely, np.int64))
    found: list[int] = candidates[fit(windows[candidates], head, shard.std, shard.dtype)].tolist()
    return found


def _scan_on_cpu(model: InitialModel, seeds: NDArray[np.uint64]) -> Iterator[StreamPosition]:
    """After no or one construction of the model."""
    shard = model.first
    head = shard.head(HEAD[CPU])
    for start in sorted(likely_starts(model))[:2]:
        first = generators.cpu_heads(seeds, start, _CPU_FIRST)
        likely = seeds[fit(first, head[:_CPU_FIRST], shard.std, shard.dtype)]
        if likely.size:
            fitting = likely[fit(generators.cpu_heads(likely, start, head.size), head, shard.std, shard.dtype)]
            yield from (StreamPosition(CPU, int(seed), start) for seed in fitting)


# ---- GPU

GPU_REACH = 1 << 18  # offsets that are searched
GPU_NEAR = 1024  # offsets that are searched for each of many seeds
_GPU_BATCH = 1 << 10  # seeds at a time
_GPU_FIRST = 3  # values that are compared for each of many seeds
_MOST_COUNTS = 3  # thread counts that are replayed


def _locate_on_gpu(model: InitialModel, seed: int) -> Iterator[StreamPosition]:
    shards = model.shards[0]
    found = _find_offsets(shards, seed)
    if not found:
        return
    for resident, known in _thread_counts(shards, found, seed):
        offsets = positions(shards, CudaStream(seed, resident))
        starts = Counter(offset - offsets[name] for name, offset in found.items() if offset >= offsets[name])
        for start, _ in starts.most_common(1):
            yield StreamPosition(CUDA, seed, start, resident, known)


def _find_offsets(shards: Mapping[str, Shard], seed: int) -> dict[str, int]:
    """The offset at which each tensor was drawn, for those that were drawn within reach."""
    offsets = np.arange(0, GPU_REACH, generators.CALL)
    normals = generators.gpu_heads(seed, offsets, HEAD[CUDA])
    found = {}
    for name, shard in shards.items():
        head = shard.head(HEAD[CUDA])
        hits = np.flatnonzero(fit(normals[:, : head.size], head, shard.std, shard.dtype))
        if hits.size:
            found[name] = int(offsets[hits[0]])
    return found


def _thread_counts(shards: Mapping[str, Shard], found: Mapping[str, int], seed: int) -> Iterator[tuple[int, bool]]:
    """(threads, whether a tensor reveals them), by the largest tensor that does; last the fewest that none reveals."""
    for name in sorted(found, key=lambda name: -shards[name].elements):
        counts = _fitting_counts(shards[name], seed, found[name])[:_MOST_COUNTS]
        if counts:
            yield from ((threads, True) for threads in counts)
            break
    block = generators.BLOCK
    yield block * max(-(-shard.elements // block) for shard in shards.values()), False


def _fitting_counts(shard: Shard, seed: int, offset: int) -> list[int]:
    """Thread counts below the tensor's size for which the threads' second values are where they should be."""
    values = shard.read(None).reshape(-1)
    counts = np.arange(generators.BLOCK, shard.elements, generators.BLOCK)
    normals = generators.second_turn(seed, offset, HEAD[CUDA])
    whole = counts[counts + HEAD[CUDA] <= shard.elements]
    windows = to_float32(values[whole[:, None] + np.arange(HEAD[CUDA])], shard.dtype)
    fitting: list[int] = whole[fit(normals[None, :], windows, shard.std, shard.dtype)].tolist()
    for threads in counts[whole.size :].tolist():  # too near the end to compare all values
        tail = to_float32(values[threads:], shard.dtype)
        if fit(normals[: tail.size], tail, shard.std, shard.dtype):
            fitting.append(threads)
    return fitting


def _scan_on_gpu(model: InitialModel, seeds: NDArray[np.uint64]) -> Iterator[StreamPosition]:
    """At small offsets, and after one or two constructions of the model on a known GPU."""
    shard = model.first
    head = shard.head(HEAD[CUDA])
    calls = np.array(scanned_offsets(model), np.uint64) // np.uint64(generators.CALL)
    for start in range(0, seeds.size, _GPU_BATCH):
        batch = seeds[start : start + _GPU_BATCH]
        likely = np.ones((batch.size, calls.size), bool)
        for thread in range(min(_GPU_FIRST, head.size)):
            rows, columns = np.nonzero(likely)
            normals = generators.normal4(batch[rows], calls[columns], np.uint64(thread), pairs=1)[0]
            one = slice(thread, thread + 1)
            likely[rows, columns] = fit(normals[:, None], head[one], shard.std, shard.dtype)
        for row in np.unique(np.nonzero(likely)[0]):
            yield from _locate_on_gpu(model, int(batch[row]))


def scanned_offsets(model: InitialModel) -> tuple[int, ...]:
    """The offsets that are tried for each of many seeds."""
    offsets = set(range(0, GPU_NEAR, generators.CALL))
    for resident in generators.DISTINCT:
        size = positions(model.shards[0], CudaStream(0, resident))[""]
        offsets |= {size, 2 * size}
    return tuple(sorted(offsets))
