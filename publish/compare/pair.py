"""The same tensor of two models, element by element, in one pass over both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.compare.moments import (
    BLOCK,
    SAMPLED,
    Distribution,
    Doubles,
    PowerSums,
    choose_pivot,
    doubles,
    inner,
    numbers,
    power_sums,
    room,
)

_FIRST = 256  # elements that choose the pivot
BITWISE, ZERO_SIGN, DIFFERENT = "bitwise-equal", "equal-up-to-zero-sign", "different"


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """What two tensors of one shape have in common.

    Differences, ``relative_l2`` (of the difference to the left side), ``cosine`` and ``correlation`` (Pearson's) are
    over the elements that are finite on both sides; NaN where there is none, or a side is zero or constant.
    ``outcome`` is by the stored bits where the dtypes are one, else by the bits of the values as float64. ``unequal``
    counts elements that differ in more than the sign of zero.
    """

    outcome: str
    left: Distribution
    right: Distribution
    unequal: int
    max_abs_diff: float
    mean_abs_diff: float
    relative_l2: float
    cosine: float
    correlation: float


class Scratch:
    """Room for a block of both sides and of their difference; one for all pairs that are summed one after another."""

    def __init__(self) -> None:
        self.x, self.y, self.d = room(), room(), room()


class Pair:
    """Sums over two tensors of dtypes ``left`` and ``right``, fed with chunks of both that lie side by side."""

    def __init__(self, left: str, right: str, scratch: Scratch) -> None:
        self._dtypes = (left, right)
        self._x, self._y, self._d = scratch.x, scratch.y, scratch.d
        self._pivot: float | None = None
        self._left = self._right = PowerSums()
        self._elements = 0
        self._unequal = self._signs = 0
        self._greatest = self._absolute = self._apart = 0.0
        self._products: tuple[float, ...] = (0.0,) * 6  # of finite pairs: count, x, y, xx, yy, xy, less the pivot

    def add(self, left: memoryview, right: memoryview) -> None:
        """The next elements of both, as many of one as of the other."""
        ours, theirs = numbers(left, self._dtypes[0]), numbers(right, self._dtypes[1])
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity: counted, not warned of
            for start in range(0, ours.size, BLOCK):
                self._add(ours[start : start + BLOCK], theirs[start : start + BLOCK])

    def _add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        same = self._dtypes[0] == self._dtypes[1]
        if same and a[0] == b[0] and a.tobytes() == b.tobytes():
            x = y = doubles(a, self._dtypes[0], self._x)
        else:
            x, y = doubles(a, self._dtypes[0], self._x), doubles(b, self._dtypes[1], self._y)
            self._count(*((_bits(a), _bits(b)) if same else (_bits(x), _bits(y))))
            self._differ(x, y)
        self._sum(x, y)

    def _count(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Elements whose bits differ: in the sign of a zero alone, or in more."""
        unequal = a != b
        negative = 1 << 8 * a.itemsize - 1  # minus zero: of unequal zeros one is that, the least as a signed number
        signed = f"i{a.itemsize}"
        zeros = 0
        if min(a.view(signed).min(), b.view(signed).min()) == -negative:
            zeros = int(np.count_nonzero(unequal & ((a | b) == a.dtype.type(negative))))
        self._signs += zeros
        self._unequal += int(np.count_nonzero(unequal)) - zeros

    def _differ(self, x: Doubles, y: Doubles) -> None:
        """Differences, where both are finite."""
        d = np.abs(np.subtract(x, y, out=self._d[: x.size]), out=self._d[: x.size])
        apart = inner(d, d)
        if not math.isfinite(apart):
            d = d[np.isfinite(d)]
            apart = inner(d, d)
        if d.size:
            self._apart += apart
            self._absolute += float(np.add.reduce(d))
            self._greatest = max(self._greatest, float(np.maximum.reduce(d)))

    def _sum(self, x: Doubles, y: Doubles) -> None:
        if self._pivot is None:
            self._pivot = choose_pivot(x[:_FIRST])
        if self._pivot:
            x = np.subtract(x, self._pivot, out=x)
            y = x if y is x else np.subtract(y, self._pivot, out=y)
        scratch, sampled = self._d[: x.size], self._elements // BLOCK % SAMPLED == 0
        self._elements += x.size
        ours = power_sums(x, scratch, sampled=sampled)
        theirs = ours if y is x else power_sums(y, scratch, sampled=sampled)
        self._left, self._right = self._left.plus(ours), self._right.plus(theirs)
        if not (ours.all_finite and theirs.all_finite):
            both = np.isfinite(x) & np.isfinite(y)
            x, y = x[both], y[both]
            ours, theirs = power_sums(x, x, sampled=False), power_sums(y, y, sampled=False)
        product = ours.second if y is x else inner(x, y)
        more = (ours.count, ours.first, theirs.first, ours.second, theirs.second, product)
        self._products = tuple(map(add, self._products, more))

    def result(self) -> PairStatistics:
        """Statistics of all that was added."""
        count, x, y, xx, yy, xy = self._products
        pivot = self._pivot or 0.0
        left = xx + 2 * pivot * x + count * pivot**2  # about 0
        right = yy + 2 * pivot * y + count * pivot**2
        ours, theirs = self._left.about(pivot), self._right.about(pivot)
        spread = (count * xx - x * x) * (count * yy - y * y)
        return PairStatistics(
            outcome=DIFFERENT if self._unequal else ZERO_SIGN if self._signs else BITWISE,
            left=ours,
            right=theirs,
            unequal=self._unequal,
            max_abs_diff=self._greatest if count else math.nan,
            mean_abs_diff=self._absolute / count if count else math.nan,
            relative_l2=math.sqrt(self._apart / left) if left > 0 else math.nan,
            cosine=_quotient(xy + pivot * (x + y) + count * pivot**2, left * right),
            correlation=_quotient(count * xy - x * y, spread if ours.std and theirs.std else 0.0),
        )


def _quotient(product: float, squares: float) -> float:
    """A cosine, held to what a cosine can be; NaN where one vector is zero."""
    return max(-1.0, min(1.0, product / math.sqrt(squares))) if squares > 0 else math.nan


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(f"u{values.itemsize}")


def side_by_side(
    left: Iterable[memoryview], right: Iterable[memoryview], sizes: tuple[int, int]
) -> Iterator[tuple[memoryview, memoryview]]:
    """Chunks of both with as many elements each; ``sizes`` are the bytes of an element on either side."""
    theirs, rest = iter(right), memoryview(b"")
    for chunk in left:
        while len(chunk):
            if not len(rest):
                rest = next(theirs)
            count = min(len(chunk) // sizes[0], len(rest) // sizes[1])
            yield chunk[: count * sizes[0]], rest[: count * sizes[1]]
            chunk, rest = chunk[count * sizes[0] :], rest[count * sizes[1] :]
