"""``tensor.normal_`` as torch runs it on a GPU: which thread draws which element, and how far the offset moves.

Source: torch ``aten/src/ATen/native/cuda/DistributionTemplates.h`` (calc_execution_policy and the grid-stride kernel).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from publish.explain.philox import Normals, normal4

BLOCK = 256  # threads of a block
CALL = 4  # normals of a call, and the step of an offset
_THREADS = 1 << 14  # computed at a time: the words stay in the cache


def threads_for(elements: int, resident: int) -> int:
    """Threads that fill a tensor on a GPU with ``resident`` threads in blocks of 256."""
    return BLOCK * min(resident // BLOCK, -(-elements // BLOCK))


def advance(elements: int, resident: int) -> int:
    """By how much a tensor moves the generator's offset."""
    return CALL * (1 + (elements - 1) // (CALL * threads_for(elements, resident)))


def standard_normals(seed: int, offset: int, elements: int, resident: int) -> Iterator[tuple[int, Normals]]:
    """(index of the first element, its standard normal and those after it), in any order, every element once."""
    threads = threads_for(elements, resident)
    for call in range(-(-elements // (CALL * threads))):
        base = CALL * threads * call
        for start in range(0, min(threads, elements - base), _THREADS):
            lanes = np.arange(start, min(start + _THREADS, threads), dtype=np.uint64)
            for turn, normals in enumerate(normal4(seed, offset // CALL + call, lanes)):
                first = base + threads * turn + start
                if first < elements:
                    yield first, normals[: elements - first]


def heads(seed: int, offsets: NDArray[np.int64], count: int) -> Normals:
    """The first ``count`` standard normals of a tensor drawn at each offset, shape (offsets, count): no GPU matters.

    True of tensors with at least ``count`` elements, ``count`` at most 256.
    """
    calls = (offsets // CALL).astype(np.uint64)[:, None]
    lanes = np.arange(count, dtype=np.uint64)[None, :]
    step = max(1, _THREADS // count)
    parts = [normal4(seed, calls[at : at + step], lanes, pairs=1)[0] for at in range(0, len(calls), step)]
    return np.concatenate(parts)


def second_turn(seed: int, offset: int, count: int) -> Normals:
    """The standard normals of the first ``count`` threads' second elements: they stand from index T on."""
    return normal4(seed, offset // CALL, np.arange(count, dtype=np.uint64), pairs=1)[1]
