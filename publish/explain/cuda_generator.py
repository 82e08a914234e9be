"""The normal numbers that torch draws on a GPU: Philox4x32-10, ``tensor.normal_``, and the GPUs by their threads.

Of a GPU, the numbers depend only on how many threads it holds at once. Sources: Random123 (Salmon et al., 2011), CUDA's
``curand_philox4x32_x.h`` and ``curand_normal.h``, torch ``aten/src/ATen/native/cuda/DistributionTemplates.h``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]  # 32-bit words in 64-bit lanes, so that products need no widening
Normals = NDArray[np.float32]

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ROUNDS = 10
_SCALE, _SHIFT = np.float32(2.0**-32), np.float32(2.0**-33)
_TURN = np.float32(2 * np.pi)


def split(number: ArrayLike) -> tuple[Words, Words]:
    """The low and the high 32 bits of 64-bit numbers."""
    wide = np.asarray(number, np.uint64)
    return wide & _LOW, wide >> _HALF


def philox(key: tuple[Words, Words], counter: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Four 32-bit words for every counter; shapes broadcast."""
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for round_ in range(_ROUNDS):
        first, second = _MULTIPLIERS[0] * x0, _MULTIPLIERS[1] * x2
        x0 = (second >> _HALF) ^ x1 ^ ((k0 + np.uint64(round_) * _WEYL[0]) & _LOW)
        x2 = (first >> _HALF) ^ x3 ^ ((k1 + np.uint64(round_) * _WEYL[1]) & _LOW)
        x1, x3 = second & _LOW, first & _LOW
    return x0, x1, x2, x3


def box_muller(x: Words, y: Words) -> tuple[Normals, Normals]:
    """Two standard normals from two words, in float32; a GPU's fast sine and cosine differ in the last bits."""
    u = x.astype(np.float32) * _SCALE + _SHIFT
    v = (y.astype(np.float32) * _SCALE + _SHIFT) * _TURN
    radius = np.sqrt(np.float32(-2) * np.log(u))
    return radius * np.sin(v), radius * np.cos(v)


def normal4(seed: ArrayLike, call: ArrayLike, thread: ArrayLike, pairs: int = 2) -> tuple[Normals, ...]:
    """What ``curand_normal4`` returns: four normals (two for ``pairs`` 1) of a seed, a thread and its n-th call.

    ``call`` counts from the start of the stream: the generator's offset / 4 plus the calls made since.
    """
    x, y, z, w = philox(split(seed), (*split(call), *split(thread)))
    return (*box_muller(x, y), *(box_muller(z, w) if pairs == 2 else ()))


BLOCK = 256  # threads of a block
CALL = 4  # normals of a call, and the step of an offset
_THREADS = 1 << 14  # computed at a time: the words stay in the cache


def threads_for(elements: int, resident: int) -> int:
    """Threads that fill a tensor on a GPU with ``resident`` threads in blocks of 256."""
    return BLOCK * min(resident // BLOCK, -(-elements // BLOCK))


def advance(elements: int, resident: int) -> int:
    """By how much drawing a tensor moves the generator's offset."""
    return CALL * (1 + (elements - 1) // (CALL * threads_for(elements, resident)))


def standard_normals(seed: int, offset: int, elements: int, resident: int) -> Iterator[tuple[int, Normals]]:
    """(index of the first element, standard normals from there on), in any order, every element once."""
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
    """The first ``count`` standard normals of a tensor drawn at each offset, on any GPU; shape (offsets, count).

    For tensors with at least ``count`` elements; ``count`` is at most 256.
    """
    calls = (offsets // CALL).astype(np.uint64)[:, None]
    lanes = np.arange(count, dtype=np.uint64)[None, :]
    step = max(1, _THREADS // count)
    parts = [normal4(seed, calls[at : at + step], lanes, pairs=1)[0] for at in range(0, len(calls), step)]
    return np.concatenate(parts)


def second_turn(seed: int, offset: int, count: int) -> Normals:
    """The second standard normals of the first ``count`` threads: the elements from index T (the thread count) on."""
    return normal4(seed, offset // CALL, np.arange(count, dtype=np.uint64), pairs=1)[1]


# Streaming multiprocessors and the threads of each, from NVIDIA's architecture white papers and the CUDA programming
# guide's table of compute capabilities. Cards with disabled processors, and MIG slices, have other numbers.
PROCESSORS: Mapping[str, tuple[int, int]] = {
    "P100": (56, 2048),
    "V100": (80, 2048),
    "T4": (40, 1024),
    "RTX 2080 Ti": (68, 1024),
    "Quadro RTX 8000": (72, 1024),
    "A100": (108, 2048),
    "A30": (56, 2048),
    "A10": (72, 1536),
    "A40": (84, 1536),
    "RTX A6000": (84, 1536),
    "RTX 3090": (82, 1536),
    "RTX 4090": (128, 1536),
    "L4": (58, 1536),
    "L40": (142, 1536),
    "RTX 6000 Ada": (142, 1536),
    "H100 PCIe": (114, 2048),
    "H100 SXM": (132, 2048),
    "H200": (132, 2048),
    "GH200": (132, 2048),
    "B200": (148, 2048),
}
THREADS: Mapping[str, int] = {name: count * (size // BLOCK) * BLOCK for name, (count, size) in PROCESSORS.items()}
DISTINCT: tuple[int, ...] = tuple(sorted(set(THREADS.values())))


def with_threads(resident: int) -> tuple[str, ...]:
    """The known GPUs that hold exactly this many threads."""
    return tuple(name for name, threads in THREADS.items() if threads == resident)


def with_at_least(resident: int) -> tuple[str, ...]:
    """The known GPUs that hold this many threads or more."""
    return tuple(name for name, threads in THREADS.items() if threads >= resident)
