"""MT19937 for many seeds at once, as torch's CPU generator seeds and reads it, at near and far places of the stream.

Source: torch ``c10/.../MT19937RNGEngine.h`` (the reference implementation of 2002, low 32 bits of the seed) and
``aten/src/ATen/native/cpu/DistributionTemplates.h`` (normal_fill).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from publish.explain.gf2 import DEGREE, jump

Words32 = NDArray[np.uint32]

_N, _M = 624, 397
_UPPER, _LOWER = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_TWIST = np.uint32(0x9908B0DF)
_ONE = np.uint32(1)
LANE = 8  # a pair of uniforms lies this far apart: normal_fill works on groups of 16
_BATCH = 256  # seeds at a time: their 20,000 words are 20 MB


def seeded(seeds: NDArray[np.uint64]) -> Words32:
    """The state that each seed starts from, shape (624, seeds)."""
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
        # a word needs those 624, 623 and 227 places before it, so 227 can be made at once
        for start, end in ((0, _N - _M), (_N - _M, 2 * (_N - _M)), (2 * (_N - _M), _N)):
            at = slice(block + start, block + end)
            old, after = out[block + start - _N : block + end - _N], out[block + start + 1 - _N : block + end + 1 - _N]
            mixed = (old & _UPPER) | (after & _LOWER)
            out[at] = out[block + start + _M - _N : block + end + _M - _N] ^ (mixed >> _ONE) ^ ((mixed & _ONE) * _TWIST)
    return out[_N : _N + count]


def tempered(raw: Words32) -> Words32:
    """What the generator hands out for its words."""
    y = raw ^ (raw >> np.uint32(11))
    y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    y ^= y >> np.uint32(18)
    return y


def normals_of(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The standard normals of uniforms that lie `LANE` apart, as the first eight of a group of sixteen have them."""
    turn = np.float32(2 * np.pi)
    radius: NDArray[np.float32] = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first))
    radius *= np.cos(turn * second)
    return radius


def _uniforms(raw: Words32) -> NDArray[np.float32]:
    return (tempered(raw) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)


def heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
    """The first ``count`` (at most 8) standard normals after ``position`` words, shape (seeds, count).

    True of tensors with at least 16 elements. Takes 0.1 ms a seed at a far position, and 5 megabytes of words.
    """
    return np.concatenate(
        [_heads(seeds[at : at + _BATCH], position, count) for at in range(0, seeds.size, _BATCH)], axis=0
    )


def _heads(seeds: NDArray[np.uint64], position: int, count: int) -> NDArray[np.float32]:
    near = position + 2 * LANE <= DEGREE
    stream = words(seeded(seeds), position + 2 * LANE if near else DEGREE + 2 * LANE)
    terms = None if near else np.array(jump(position))

    def word(place: int) -> Words32:
        if terms is None:
            near_word: Words32 = stream[position + place]
            return near_word
        added: Words32 = np.bitwise_xor.reduce(stream[terms + place], axis=0)
        return added

    pairs = [(_uniforms(word(place)), _uniforms(word(place + LANE))) for place in range(count)]
    return np.stack([normals_of(first, second) for first, second in pairs], axis=1)
