"""The normal numbers that torch draws on a CPU: MT19937 for many seeds at once, at any position of the stream.

A far position needs none of the words before it, since the recurrence is linear over GF(2) (Haramoto et al., 2008).
Sources: torch ``aten/src/ATen/core/MT19937RNGEngine.h`` (the reference implementation of 2002, low 32 bits of the seed)
and ``aten/src/ATen/native/cpu/DistributionTemplates.h`` (normal_fill).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

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


def normals_of(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The standard normals of uniforms that are `LANE` apart: those of the first eight in a group of sixteen."""
    turn = np.float32(2 * np.pi)
    radius: NDArray[np.float32] = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first))
    radius *= np.cos(turn * second)
    return radius


def _uniforms(raw: Words32) -> NDArray[np.float32]:
    return (tempered(raw) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)


def heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
    """The first ``count`` (at most 8) standard normals after ``position`` words, shape (seeds, count).

    For tensors with at least 16 elements. A far position takes 0.1 ms a seed, and 20 MB of words.
    """
    return np.concatenate(
        [_heads(seeds[at : at + _BATCH], position, count) for at in range(0, seeds.size, _BATCH)], axis=0
    )


def _heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
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
    return np.stack([normals_of(first, second) for first, second in pairs], axis=1)
