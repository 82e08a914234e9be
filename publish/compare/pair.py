"""The same tensor of two models, element by element, in one pass over both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.compare.layers import by_layer, layer_type
from publish.compare.side import Account, Side, SideTensor
from publish.formats.dtypes import VIEWS, to_float32

# Sums over a tensor as its bytes pass: one pass, float64, a block of the processor's cache at a time.


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
    return np.frombuffer(data, VIEWS[dtype])


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


# Two sides compared: one pass over the tensors that both have, a layer at a time.


ONLY_LEFT, ONLY_RIGHT, SHAPE = "only-left", "only-right", "shape-mismatch"


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor. ``outcome`` is one of `BITWISE`, `ZERO_SIGN`, `DIFFERENT`, `SHAPE`, `ONLY_LEFT`, `ONLY_RIGHT`.

    ``statistics`` is None where the tensors cannot be laid side by side.
    """

    name: str
    kind: str
    left: SideTensor | None
    right: SideTensor | None
    outcome: str
    statistics: PairStatistics | None = None


@dataclass(frozen=True, slots=True)
class SideFacts:
    """What a report says of a side beyond its tensors."""

    where: str
    format: str
    account: Account = field(default_factory=Account)


@dataclass(frozen=True)
class Comparison:
    """All tensors of either side, in the left side's order."""

    left: SideFacts
    right: SideFacts
    tensors: tuple[TensorComparison, ...]

    def count(self, outcome: str) -> int:
        return sum(tensor.outcome == outcome for tensor in self.tensors)

    @property
    def compared(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        """The tensors that were laid side by side, by name."""
        return {each.name: (each, each.statistics) for each in self.tensors if each.statistics is not None}

    @property
    def common(self) -> int:
        """Tensors that both sides have, whatever their shape."""
        return sum(map(self.count, (BITWISE, ZERO_SIGN, DIFFERENT, SHAPE)))


def compare(left: Side, right: Side) -> Comparison:
    """Read both sides once and compare what they share.

    Memory is bounded by the chunks in flight, not by the model. Raises what reading raises.
    """
    ours, theirs = left.tensors, right.tensors
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    done: dict[str, PairStatistics] = {}
    scratch = Scratch()
    for names in by_layer(shared).values():
        left.want(names)
        right.want(names)
        done |= {name: _pair(left, right, name, scratch) for name in names}
    tensors = [_judged(name, ours.get(name), theirs.get(name), done.get(name)) for name in {**ours, **theirs}]
    return Comparison(_facts(left), _facts(right), tuple(tensors))


def _pair(left: Side, right: Side, name: str, scratch: Scratch) -> PairStatistics:
    ours, theirs = left.tensors[name], right.tensors[name]
    pair = Pair(ours.dtype, theirs.dtype, scratch)
    for chunks in side_by_side(left.chunks(name), right.chunks(name), (ours.itemsize, theirs.itemsize)):
        pair.add(*chunks)
    return pair.result()


def _judged(
    name: str, left: SideTensor | None, right: SideTensor | None, statistics: PairStatistics | None
) -> TensorComparison:
    if statistics is not None:
        outcome = statistics.outcome
    else:
        outcome = ONLY_LEFT if right is None else ONLY_RIGHT if left is None else SHAPE
    return TensorComparison(name, layer_type(name), left, right, outcome, statistics)


def _facts(side: Side) -> SideFacts:
    return SideFacts(side.where, side.format, side.account)
