"""Sums over a tensor as its bytes pass: one pass, float64, a block of the processor's cache at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.dtypes import VIEWS, to_float32

Doubles = NDArray[np.float64]
BLOCK = 1 << 15  # elements: two blocks and their difference stay in a 2 MiB cache
SAMPLED = 16  # every so many blocks are summed to the fourth power: a kurtosis only scales an error
_FLAT = 1e-13  # variance below this part of the mean square is what rounding leaves of a constant
_ROW = 1 << 13
_LINE = 64  # bytes
_DOUBLE = np.dtype("<f8")


def room(count: int = BLOCK) -> Doubles:
    """Space for ``count`` numbers from a cache line's start: what lies across lines takes up to twice as long."""
    space = np.empty(count + _LINE // _DOUBLE.itemsize)
    first = -space.ctypes.data % _LINE // _DOUBLE.itemsize
    return space[first : first + count]


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

    They are NaN where nothing is finite; the kurtosis of a constant is NaN too. The kurtosis is that of a sample, every
    `SAMPLED`th block, which is all of a tensor of one block.
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
    """Of finite numbers, about a pivot: all ``count`` of them to the second power, a sample of them to the fourth."""

    count: int = 0
    nans: int = 0
    infinities: int = 0
    first: float = 0.0
    second: float = 0.0
    sample: tuple[float, ...] = (0.0,) * 5  # count and powers 1 to 4

    @property
    def all_finite(self) -> bool:
        return not self.nans + self.infinities

    def plus(self, other: PowerSums) -> PowerSums:
        """The sums over both."""
        sample = tuple(map(add, self.sample, other.sample)) if other.sample[0] else self.sample
        return PowerSums(
            self.count + other.count,
            self.nans + other.nans,
            self.infinities + other.infinities,
            self.first + other.first,
            self.second + other.second,
            sample,
        )

    def about(self, pivot: float) -> Distribution:
        """The distribution whose numbers less ``pivot`` were summed."""
        mean = std = kurtosis = math.nan
        if self.count:
            first, second = self.first / self.count, self.second / self.count
            variance = second - first * first
            std = math.sqrt(variance) if variance > _FLAT * second else 0.0
            mean, kurtosis = first + pivot, _kurtosis(*self.sample) if std else math.nan
        elements = self.count + self.nans + self.infinities
        return Distribution(elements, self.count, self.nans, self.infinities, mean, std, kurtosis)


def _kurtosis(count: float, *sums: float) -> float:
    """The fourth moment about the mean over the squared variance, from sums of powers."""
    one, two, three, four = (value / count if count else math.nan for value in sums)
    variance = two - one * one
    central = four - 4 * one * three + 6 * one * one * two - 3 * one**4
    return central / variance**2 if variance > _FLAT * two else math.nan


def power_sums(block: Doubles, scratch: Doubles, *, sampled: bool) -> PowerSums:
    """The sums of one block, to the fourth power where it is ``sampled``; ``scratch`` has its size."""
    one, two = float(np.add.reduce(block)), inner(block, block)
    if math.isfinite(two):
        if not sampled:
            return PowerSums(block.size, first=one, second=two)
        square = np.multiply(block, block, out=scratch)
        sample = (float(block.size), one, two, inner(block, square), inner(square, square))
        return PowerSums(block.size, first=one, second=two, sample=sample)
    finite = block[np.isfinite(block)]
    nans = int(np.count_nonzero(np.isnan(block)))
    of_finite = power_sums(finite, np.empty_like(finite), sampled=sampled)
    return replace(of_finite, nans=nans, infinities=block.size - finite.size - nans)


def inner(x: Doubles, y: Doubles) -> float:
    """The dot product, in rows so short that no BLAS spreads them over threads, which costs more than it saves."""
    rest = x.size % _ROW
    whole = x.size - rest
    product = float(np.dot(x[whole:], y[whole:])) if rest else 0.0
    if whole:
        rows = np.matmul(x[:whole].reshape(-1, 1, _ROW), y[:whole].reshape(-1, _ROW, 1))
        product += float(np.add.reduce(rows, axis=None))
    return product


def choose_pivot(block: Doubles) -> float:
    """A number near the mean where that is large against the deviation: the first finite one, else 0."""
    square = float(np.dot(block, block))
    if not math.isfinite(square):
        finite = block[np.isfinite(block)]
        return choose_pivot(finite) if finite.size else 0.0
    mean = float(np.add.reduce(block)) / max(1, block.size)
    return float(block[0]) if 2 * mean * mean * block.size > square else 0.0
