"""Sums over a tensor as its bytes pass: one pass, float64, a block of the processor's cache at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.dtypes import VIEWS, to_float32

Doubles = NDArray[np.float64]
BLOCK = 1 << 15  # elements: two blocks and their difference stay in a 2 MiB cache
_FLAT = 1e-13  # variance below this part of the mean square is what rounding leaves of a constant
_ROW = 1 << 13
_DOUBLE = np.dtype("<f8")


def numbers(data: memoryview, dtype: str) -> NDArray[Any]:
    """Bytes of ``dtype`` as numpy sees them; bfloat16 as the uint16 of its bits."""
    return np.frombuffer(data, VIEWS.get(dtype, _DOUBLE))


def doubles(values: NDArray[Any], dtype: str, out: Doubles) -> Doubles:
    """``values`` of ``dtype`` as float64, exactly, in the first elements of ``out``."""
    into = out[: values.size]
    np.copyto(into, to_float32(values, dtype) if dtype == "bfloat16" else values)
    return into


@dataclass(frozen=True, slots=True)
class Distribution:
    """One tensor: ``finite`` elements have ``mean``, population ``std`` and ``kurtosis`` (3 for a normal one).

    They are NaN where nothing is finite; the kurtosis of a constant is NaN too.
    """

    elements: int
    finite: int
    nans: int
    infinities: int
    mean: float
    std: float
    kurtosis: float


@dataclass(frozen=True, slots=True)
class PowerSums:
    """Of finite numbers, about a pivot; ``all_finite`` says whether nothing was left out."""

    count: int
    nans: int
    infinities: int
    sums: tuple[float, float, float, float]

    @property
    def all_finite(self) -> bool:
        return not self.nans + self.infinities

    def __add__(self, other: PowerSums) -> PowerSums:
        one, two, three, four = (a + b for a, b in zip(self.sums, other.sums, strict=True))
        return PowerSums(
            self.count + other.count,
            self.nans + other.nans,
            self.infinities + other.infinities,
            (one, two, three, four),
        )

    def about(self, pivot: float) -> Distribution:
        """The distribution whose numbers less ``pivot`` were summed."""
        elements = self.count + self.nans + self.infinities
        if not self.count:
            return Distribution(elements, 0, self.nans, self.infinities, math.nan, math.nan, math.nan)
        first, second, third, fourth = (value / self.count for value in self.sums)
        variance = second - first * first
        if variance <= _FLAT * second:
            return Distribution(elements, self.count, self.nans, self.infinities, first + pivot, 0.0, math.nan)
        central = fourth - 4 * first * third + 6 * first * first * second - 3 * first**4
        return Distribution(
            elements,
            self.count,
            self.nans,
            self.infinities,
            first + pivot,
            math.sqrt(variance),
            central / variance**2,
        )


NOTHING = PowerSums(0, 0, 0, (0.0, 0.0, 0.0, 0.0))


def power_sums(block: Doubles, scratch: Doubles) -> PowerSums:
    """The sums of one block; ``scratch`` has its size."""
    square = np.multiply(block, block, out=scratch)
    two = inner(block, block)
    if math.isfinite(two):
        sums = (float(block.sum()), two, inner(block, square), inner(square, square))
        return PowerSums(block.size, 0, 0, sums)
    finite = block[np.isfinite(block)]
    of_finite = power_sums(finite, np.empty_like(finite))
    nans = int(np.count_nonzero(np.isnan(block)))
    return PowerSums(finite.size, nans, block.size - finite.size - nans, of_finite.sums)


def inner(x: Doubles, y: Doubles) -> float:
    """The dot product, in rows so short that no BLAS spreads them over threads, which costs more than it saves."""
    whole = x.size - x.size % _ROW
    rows = np.matmul(x[:whole].reshape(-1, 1, _ROW), y[:whole].reshape(-1, _ROW, 1))
    return float(rows.sum()) + float(np.dot(x[whole:], y[whole:]))


def choose_pivot(block: Doubles) -> float:
    """A number near the mean where that is large against the deviation: the first finite one, else 0."""
    finite = block[np.isfinite(block)]
    return float(finite[0]) if finite.size and abs(finite.mean()) > finite.std() else 0.0
