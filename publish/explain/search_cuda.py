"""Where in a CUDA generator's stream tensors begin, and on how many threads they were drawn.

A tensor's first 256 values depend on seed and offset alone; the threads follow from where their second values stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from publish.explain import cuda_generator
from publish.explain.cuda_generator import DISTINCT, normal4
from publish.explain.matching import fit
from publish.explain.streams import HEAD, CudaStream, Place, positions
from publish.explain.subject import Shard, Subject
from publish.formats.dtypes import to_float32
from publish.neox.state import CUDA

REACH = 1 << 18  # offsets that are searched
NEAR = 1024  # for each of many seeds
_BATCH = 1 << 10  # seeds at a time
_FIRST = 3  # values that are compared for each of many seeds
_MOST = 3  # thread counts that are tried in full


def locate(subject: Subject, seed: int) -> Iterator[Place]:
    """Places that explain the beginnings of tensors of rank 0, the best attested thread count first."""
    shards = subject.shards[0]
    found = _offsets(shards, seed)
    if not found:
        return
    fewest = undecided(shards)
    for resident, told in _thread_counts(shards, found, seed, fewest):
        lie = positions(shards, CudaStream(seed, resident))
        starts = Counter(offset - lie[name] for name, offset in found.items() if offset >= lie[name])
        for start, _ in starts.most_common(1):
            yield Place(CUDA, seed, start, resident, told)


def undecided(shards: Mapping[str, Shard]) -> int:
    """The fewest threads of a GPU on which no tensor tells how many it holds."""
    return cuda_generator.BLOCK * max(-(-shard.elements // cuda_generator.BLOCK) for shard in shards.values())


def _offsets(shards: Mapping[str, Shard], seed: int) -> dict[str, int]:
    """The offset at which each tensor was drawn, where there is one within reach."""
    offsets = np.arange(0, REACH, cuda_generator.CALL)
    normals = cuda_generator.heads(seed, offsets, HEAD[CUDA])
    found = {}
    for name, shard in shards.items():
        head = shard.head(HEAD[CUDA])
        hits = np.flatnonzero(fit(normals[:, : head.size], head, shard.std, shard.dtype))
        if hits.size:
            found[name] = int(offsets[hits[0]])
    return found


def _thread_counts(
    shards: Mapping[str, Shard], found: Mapping[str, int], seed: int, fewest: int
) -> Iterator[tuple[int, bool]]:
    """(threads, whether a tensor tells them), by the largest tensor that does."""
    for name in sorted(found, key=lambda name: -shards[name].elements):
        counts = _fitting(shards[name], seed, found[name])[:_MOST]
        if counts:
            yield from ((count, True) for count in counts)
            break
    yield fewest, False


def _fitting(shard: Shard, seed: int, offset: int) -> list[int]:
    """Thread counts below the tensor's size for which the threads' second values stand where they should."""
    values = shard.read(None).reshape(-1)
    counts = np.arange(cuda_generator.BLOCK, shard.elements, cuda_generator.BLOCK)
    normals = cuda_generator.second_turn(seed, offset, HEAD[CUDA])
    whole = counts[counts + HEAD[CUDA] <= shard.elements]
    windows = to_float32(values[whole[:, None] + np.arange(HEAD[CUDA])], shard.dtype)
    fitting: list[int] = whole[_rows_fit(windows, normals, shard)].tolist()
    for count in counts[whole.size :].tolist():  # too near the end for all of them
        tail = to_float32(values[count:], shard.dtype)
        if fit(normals[: tail.size], tail, shard.std, shard.dtype):
            fitting.append(count)
    return fitting


def _rows_fit(windows: NDArray[np.float32], normals: NDArray[np.float32], shard: Shard) -> NDArray[np.bool_]:
    return fit(normals[None, :], windows, shard.std, shard.dtype)


def scan(subject: Subject, seeds: NDArray[np.uint64]) -> Iterator[Place]:
    """Places of the first tensor for any of many generator seeds, at small offsets and after one or two models."""
    shard = subject.first
    head = shard.head(HEAD[CUDA])
    calls = np.array(scanned_offsets(subject), np.uint64) // np.uint64(cuda_generator.CALL)
    for start in range(0, seeds.size, _BATCH):
        batch = seeds[start : start + _BATCH]
        likely = np.ones((batch.size, calls.size), bool)
        for thread in range(min(_FIRST, head.size)):
            rows, columns = np.nonzero(likely)
            normals = normal4(batch[rows], calls[columns], np.uint64(thread), pairs=1)[0]
            one = slice(thread, thread + 1)
            likely[rows, columns] = fit(normals[:, None], head[one], shard.std, shard.dtype)
        for row in np.unique(np.nonzero(likely)[0]):
            yield from locate(subject, int(batch[row]))


def scanned_offsets(subject: Subject) -> tuple[int, ...]:
    """The offsets that are tried for each of many seeds."""
    offsets = set(range(0, NEAR, cuda_generator.CALL))
    for resident in DISTINCT:
        size = positions(subject.shards[0], CudaStream(0, resident))[""]
        offsets |= {size, 2 * size}
    return tuple(sorted(offsets))
