"""Philox4x32-10 and the normals that curand makes of it, vectorised.

Sources: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011) and Random123's known
answers; CUDA's ``curand_philox4x32_x.h`` and ``curand_normal.h``.
"""

from __future__ import annotations

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
    """Two standard normals of two words, in float32; a GPU's fast sine and cosine differ in the last bits."""
    u = x.astype(np.float32) * _SCALE + _SHIFT
    v = (y.astype(np.float32) * _SCALE + _SHIFT) * _TURN
    radius = np.sqrt(np.float32(-2) * np.log(u))
    return radius * np.sin(v), radius * np.cos(v)


def normal4(seed: ArrayLike, call: ArrayLike, thread: ArrayLike, pairs: int = 2) -> tuple[Normals, ...]:
    """What ``curand_normal4`` gives: four normals (two for ``pairs`` 1) of a seed, a thread and its n-th call.

    ``call`` counts from the start of the stream: the generator's offset / 4 plus the calls made since.
    """
    x, y, z, w = philox(split(seed), (*split(call), *split(thread)))
    return (*box_muller(x, y), *(box_muller(z, w) if pairs == 2 else ()))
