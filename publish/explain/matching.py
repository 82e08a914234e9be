"""Stored values against recomputed ones: equal in every bit, one unit apart, near, or wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from publish.dtypes import DTYPES
from publish.explain.subject import Bits, Shard
from publish.formats.dtypes import from_float32, to_float32

# In standard deviations: the float32 rounding of an angle up to 2 pi and the error of a GPU's fast sine and cosine
# (2^-21.4 and more beyond pi: CUDA programming guide, intrinsic functions), times a radius up to 6.7.
SLACK = 2.0**-16
_BLOCK = 1 << 18  # elements that are compared at a time
_NEEDED = 3, 4  # of the first values, this share must fit


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of one tensor's values. ``one_apart``: by one unit in the last place; ``near``: by more, yet within what
    a GPU's fast functions explain; ``wrong``: by more than that. ``first_unequal`` and ``first_wrong`` are indices."""

    values: int = 0
    equal: int = 0
    one_apart: int = 0
    near: int = 0
    wrong: int = 0
    first_unequal: int | None = None
    first_wrong: int | None = None

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.values + other.values,
            self.equal + other.equal,
            self.one_apart + other.one_apart,
            self.near + other.near,
            self.wrong + other.wrong,
            _least(self.first_unequal, other.first_unequal),
            _least(self.first_wrong, other.first_wrong),
        )


def _least(left: int | None, right: int | None) -> int | None:
    return min((number for number in (left, right) if number is not None), default=None)


def tally(stored: Bits, expected: Bits, dtype: str, std: float, start: int = 0) -> Tally:
    """Compare two flat arrays of ``dtype``; ``start`` is the index of their first element in the tensor."""
    blocks = (slice(at, at + _BLOCK) for at in range(0, stored.size, _BLOCK))
    return sum((_tally(stored[at], expected[at], dtype, std, start + at.start) for at in blocks), Tally())


def _tally(stored: Bits, expected: Bits, dtype: str, std: float, start: int) -> Tally:
    same = stored.view(f"u{stored.itemsize}") == expected.view(f"u{expected.itemsize}")
    equal = int(np.count_nonzero(same))
    if equal == stored.size:
        return Tally(equal, equal)
    odd = np.flatnonzero(~same)
    left, right = stored[odd], expected[odd]
    apart = np.abs(_ordered(left) - _ordered(right))
    with np.errstate(invalid="ignore", over="ignore"):
        numbers, due = to_float32(left, dtype), to_float32(right, dtype)
        close = np.abs(numbers - due) <= np.float32(SLACK * std)
    one = apart <= 1
    wrong = ~one & ~close
    first = int(odd[np.argmax(wrong)]) + start if wrong.any() else None
    apart_by_one, near, far = (int(np.count_nonzero(which)) for which in (one, ~one & close, wrong))
    return Tally(stored.size, equal, apart_by_one, near, far, int(odd[0]) + start, first)


def _ordered(values: Bits) -> NDArray[np.int64]:
    """Integers in the order of the numbers, neighbours one apart, both zeros 0."""
    bits = values.view(f"u{values.itemsize}").astype(np.int64)
    sign = 1 << (8 * values.itemsize - 1)
    return np.where(bits & sign, -(bits ^ sign), bits)


def scaled(normals: NDArray[np.float32], shard: Shard) -> Bits:
    """Standard normals as the shard would hold them."""
    return from_float32(normals * np.float32(shard.std), shard.dtype)


def fit(normals: NDArray[np.float32], head: NDArray[np.float32], std: float, dtype: str) -> NDArray[np.bool_]:
    """Which rows of ``normals`` (..., count) can have made ``head`` (the same, or broadcast): three quarters must fit.

    Rounded twice, so a unit and a half; a changed value or two at a tensor's start do not hide it.
    """
    finest = 2.0**-24 if dtype == "float16" else 0
    with np.errstate(invalid="ignore", over="ignore"):
        slack = np.float32(1.5 * DTYPES[dtype].ulp) * np.abs(head) + np.float32(SLACK * std + finest)
        hits = np.abs(normals * np.float32(std) - head) <= slack
    found: NDArray[np.bool_] = hits.sum(axis=-1) * _NEEDED[1] >= hits.shape[-1] * _NEEDED[0]
    return found
