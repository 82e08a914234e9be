"""The normal numbers that torch draws, at any position of a generator's stream, without drawing what comes before.

On a CPU: MT19937, for many seeds at once. Its recurrence is linear over GF(2), which gives far positions (Haramoto et
al., 2008). Sources: torch ``aten/src/ATen/core/MT19937RNGEngine.h`` (the reference implementation of 2002, low 32 bits
of the seed) and ``aten/src/ATen/native/cpu/DistributionTemplates.h`` (normal_fill).

On a GPU: Philox4x32-10 as ``tensor.normal_`` uses it. The numbers depend on the GPU only by how many threads it holds
at once. Sources: Random123 (Salmon et al., 2011), CUDA's ``curand_philox4x32_x.h`` and ``curand_normal.h``, torch
``aten/src/ATen/native/cuda/DistributionTemplates.h``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

# ---- CPU

DEGREE = 19937
_N, _M, _W, _R = 624, 397, 32, 31
_TWIST = 0x9908B0DF
_SPREAD = [int(f"{byte:b}", 4) for byte in range(256)]  # bit i goes to bit 2i


def _multiply(left: int, right: int) -> int:
    """The product over GF(2), fast if ``right`` has few terms."""
    product = 0
    while right:
        low = right & -right
        product ^= left << (low.bit_length() - 1)
        right ^= low
    return product


def _square(polynomial: int) -> int:
    data = polynomial.to_bytes(-(-polynomial.bit_length() // 8), "little")
    return int.from_bytes(b"".join(_SPREAD[byte].to_bytes(2, "little") for byte in data), "little")


def _power(polynomial: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = _multiply(result, polynomial)
    return result


@functools.cache
def characteristic() -> int:
    """The polynomial of degree 19,937 that the sequence of words satisfies in every bit."""
    far, near = (1 << _N) | (1 << _M), (1 << (_N - 1)) | (1 << (_M - 1))
    bits = [_TWIST >> i & 1 for i in range(_W)]
    high = _power(far, _W - _R)
    total = _multiply(high, _power(near, _R))
    for i in range(_R):
        if bits[i]:
            total ^= _multiply(high, _power(near, _R - 1 - i))
    for i in range(_R, _W):
        if bits[i]:
            total ^= _power(far, _W - 1 - i)
    return total


def _reduce(polynomial: int) -> int:
    modulus = characteristic()
    while (excess := polynomial.bit_length() - 1 - DEGREE) >= 0:
        polynomial ^= modulus << excess
    return polynomial


@functools.lru_cache(maxsize=32)
def jump(distance: int) -> tuple[int, ...]:
    """Which of the words 0 to 19,936 give word ``distance`` by exclusive or; shifted by n, word ``distance`` + n."""
    remainder = 1
    for bit in f"{distance:b}":
        remainder = _square(remainder)
        if bit == "1":
            remainder <<= 1
        remainder = _reduce(remainder)
    return tuple(i for i in range(DEGREE) if remainder >> i & 1)


Words32 = NDArray[np.uint32]

_UPPER, _LOWER = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_TWIST_BITS = np.uint32(0x9908B0DF)
_ONE = np.uint32(1)
LANE = 8  # words between the two uniforms of a pair: normal_fill works on groups of 16
_BATCH = 256  # seeds at a time: their 20,000 words are 20 MB


def seeded(seeds: NDArray[np.uint64]) -> Words32:
    """The initial state of each seed, shape (624, seeds)."""
    state = np.empty((_N, seeds.size), np.uint32)
    state[0] = (seeds & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    for i in range(1, _N):
        before = state[i - 1]
        state[i] = (before ^ (before >> np.uint32(30))) * np.uint32(1812433253) + np.uint32(i)
    return state


def words(state: Words32, count: int) -> Words32:
    """The next ``count`` words of every stream before tempering, shape (count, seeds)."""
    out = np.empty((_N + -(-count // _N) * _N, state.shape[1]), np.uint32)
    out[:_N] = state
    for block in range(_N, out.shape[0], _N):
        # a word depends on those 624, 623 and 227 before it, so 227 can be computed at once
        for start, end in ((0, _N - _M), (_N - _M, 2 * (_N - _M)), (2 * (_N - _M), _N)):
            at = slice(block + start, block + end)
            old, after = out[block + start - _N : block + end - _N], out[block + start + 1 - _N : block + end + 1 - _N]
            mixed = (old & _UPPER) | (after & _LOWER)
            out[at] = (
                out[block + start + _M - _N : block + end + _M - _N] ^ (mixed >> _ONE) ^ ((mixed & _ONE) * _TWIST_BITS)
            )
    return out[_N : _N + count]


def tempered(raw: Words32) -> Words32:
    """The generator's output for its words."""
    y = raw ^ (raw >> np.uint32(11))
    y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    y ^= y >> np.uint32(18)
    return y


def cpu_normals(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The standard normals of uniforms that are `LANE` apart: those of the first eight in a group of sixteen."""
    turn = np.float32(2 * np.pi)
    radius: NDArray[np.float32] = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first))
    radius *= np.cos(turn * second)
    return radius


def _uniforms(raw: Words32) -> NDArray[np.float32]:
    return (tempered(raw) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)


def cpu_heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
    """The first ``count`` (at most 8) standard normals after ``position`` words, shape (seeds, count).

    For tensors with at least 16 elements. A far position takes 0.1 ms a seed, and 20 MB of words.
    """
    return np.concatenate(
        [_batch_heads(seeds[at : at + _BATCH], position, count) for at in range(0, seeds.size, _BATCH)], axis=0
    )


def _batch_heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
    near = position + 2 * LANE <= DEGREE
    stream = words(seeded(seeds), position + 2 * LANE if near else DEGREE + 2 * LANE)
    terms = None if near else np.array(jump(position))

    def word(index: int) -> Words32:
        if terms is None:
            near_word: Words32 = stream[position + index]
            return near_word
        far_word: Words32 = np.bitwise_xor.reduce(stream[terms + index], axis=0)
        return far_word

    pairs = [(_uniforms(word(index)), _uniforms(word(index + LANE))) for index in range(count)]
    return np.stack([cpu_normals(first, second) for first, second in pairs], axis=1)


# ---- GPU

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
_LANES = 1 << 14  # computed at a time: the words stay in the cache


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
        for start in range(0, min(threads, elements - base), _LANES):
            lanes = np.arange(start, min(start + _LANES, threads), dtype=np.uint64)
            for turn, normals in enumerate(normal4(seed, offset // CALL + call, lanes)):
                first = base + threads * turn + start
                if first < elements:
                    yield first, normals[: elements - first]


def gpu_heads(seed: int, offsets: NDArray[np.int64], count: int) -> Normals:
    """The first ``count`` standard normals of a tensor drawn at each offset, on any GPU; shape (offsets, count).

    For tensors with at least ``count`` elements; ``count`` is at most 256.
    """
    calls = (offsets // CALL).astype(np.uint64)[:, None]
    lanes = np.arange(count, dtype=np.uint64)[None, :]
    step = max(1, _LANES // count)
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
