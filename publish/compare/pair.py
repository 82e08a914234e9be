"""Two models compared tensor by tensor, in one pass over both.

Statistics are float64 sums over the stored values, taken while the bytes pass, one block of the processor's cache at a
time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.compare.model import ModelTensor, OpenModel, Provenance, by_layer, layer_type
from publish.formats.dtypes import VIEWS, to_float32

Doubles = NDArray[np.float64]
BLOCK = 1 << 15  # elements: two blocks and their difference stay in a 2 MiB cache
SAMPLED = 16  # one block in so many is summed to the fourth power: the kurtosis only scales an error
BITWISE, ZERO_SIGN, DIFFERENT = "bitwise-equal", "equal-up-to-zero-sign", "different"
ONLY_LEFT, ONLY_RIGHT, SHAPE = "only-left", "only-right", "shape-mismatch"
_FLAT = 1e-13  # a variance below this part of the mean square is the rounding error of a constant
_ROW = 1 << 13
PIVOT_SAMPLE = 256  # elements that choose the pivot
_CACHE_LINE = 64  # bytes
_DOUBLE = np.dtype("<f8")


def aligned_buffer(count: int = BLOCK) -> Doubles:
    """``count`` uninitialised numbers that begin at a cache line: arithmetic across lines takes up to twice as long."""
    space = np.empty(count + _CACHE_LINE // _DOUBLE.itemsize)
    first = -space.ctypes.data % _CACHE_LINE // _DOUBLE.itemsize
    return space[first : first + count]


def as_array(data: memoryview, dtype: str) -> NDArray[Any]:
    """A view of bytes of ``dtype``; bfloat16 as the uint16 of its bits."""
    return np.frombuffer(data, VIEWS[dtype])


def to_float64(values: NDArray[Any], dtype: str, out: Doubles) -> Doubles:
    """``values`` of ``dtype`` as float64, exactly, in the first elements of ``out``."""
    into = out[: values.size]
    np.copyto(into, to_float32(values, dtype) if dtype == "bfloat16" else values)
    return into


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of one tensor: ``mean``, population ``std`` and ``kurtosis`` (3 for a normal one) of the finite ones.

    They are NaN if no value is finite; the kurtosis of a constant is NaN too. The kurtosis is that of a sample, every
    `SAMPLED`th block; a tensor of one block is its own sample.
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
    """Sums of powers of finite numbers less a pivot: the first two of all ``count``, the first four of a sample."""

    count: int = 0
    nans: int = 0
    infinities: int = 0
    first: float = 0.0
    second: float = 0.0
    sample: tuple[float, ...] = (0.0,) * 5  # count and powers 1 to 4

    @property
    def all_finite(self) -> bool:
        return not self.nans + self.infinities

    def __add__(self, other: PowerSums) -> PowerSums:
        sample = tuple(map(add, self.sample, other.sample)) if other.sample[0] else self.sample
        return PowerSums(
            self.count + other.count,
            self.nans + other.nans,
            self.infinities + other.infinities,
            self.first + other.first,
            self.second + other.second,
            sample,
        )

    def distribution(self, pivot: float) -> Distribution:
        """The distribution of the numbers, of which ``pivot`` was subtracted before they were summed."""
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
    """The sums of one block, to the fourth power if it is ``sampled``; ``scratch`` has the block's size."""
    one, two = float(np.add.reduce(block)), dot(block, block)
    if math.isfinite(two):
        if not sampled:
            return PowerSums(block.size, first=one, second=two)
        square = np.multiply(block, block, out=scratch)
        sample = (float(block.size), one, two, dot(block, square), dot(square, square))
        return PowerSums(block.size, first=one, second=two, sample=sample)
    finite = block[np.isfinite(block)]
    nans = int(np.count_nonzero(np.isnan(block)))
    of_finite = power_sums(finite, np.empty_like(finite), sampled=sampled)
    return replace(of_finite, nans=nans, infinities=block.size - finite.size - nans)


def dot(x: Doubles, y: Doubles) -> float:
    """The dot product, in rows too short for a BLAS to spread them over threads, which costs more than it saves."""
    rest = x.size % _ROW
    whole = x.size - rest
    product = float(np.dot(x[whole:], y[whole:])) if rest else 0.0
    if whole:
        rows = np.matmul(x[:whole].reshape(-1, 1, _ROW), y[:whole].reshape(-1, _ROW, 1))
        product += float(np.add.reduce(rows, axis=None))
    return product


def choose_pivot(block: Doubles) -> float:
    """The first finite number if the mean is large against the standard deviation, else 0."""
    square = float(np.dot(block, block))
    if not math.isfinite(square):
        finite = block[np.isfinite(block)]
        return choose_pivot(finite) if finite.size else 0.0
    mean = float(np.add.reduce(block)) / max(1, block.size)
    return float(block[0]) if 2 * mean * mean * block.size > square else 0.0


@dataclass(frozen=True, slots=True)
class PairStatistics:
    """How two tensors of one shape differ.

    Differences, ``relative_l2`` (of the difference to the left side), ``cosine`` and ``correlation`` (Pearson's) are
    over the elements that are finite on both sides; NaN if there are none, or a side is zero or constant. ``outcome``
    compares the stored bits, or those of the values as float64 if the dtypes differ. ``unequal`` counts elements that
    differ in more than the sign of zero.
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
    """Buffers for a block of both sides and of their difference, shared by pairs that are summed one after another."""

    def __init__(self) -> None:
        self.x, self.y, self.d = aligned_buffer(), aligned_buffer(), aligned_buffer()


class PairSums:
    """Sums over two tensors of dtypes ``left`` and ``right``, fed with chunks of both."""

    def __init__(self, left: str, right: str, scratch: Scratch) -> None:
        self._dtypes = (left, right)
        self._x, self._y, self._d = scratch.x, scratch.y, scratch.d
        self._pivot: float | None = None
        self._left = self._right = PowerSums()
        self._elements = 0
        self._unequal = self._signs = 0
        self._greatest = self._absolute = self._squared = 0.0  # of the differences
        self._products: tuple[float, ...] = (0.0,) * 6  # of finite pairs: count, x, y, xx, yy, xy, less the pivot

    def add(self, left: memoryview, right: memoryview) -> None:
        """Add the next elements, as many of one side as of the other."""
        ours, theirs = as_array(left, self._dtypes[0]), as_array(right, self._dtypes[1])
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity is counted
            for start in range(0, ours.size, BLOCK):
                self._add_block(ours[start : start + BLOCK], theirs[start : start + BLOCK])

    def _add_block(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        same = self._dtypes[0] == self._dtypes[1]
        if same and a[0] == b[0] and a.tobytes() == b.tobytes():
            x = y = to_float64(a, self._dtypes[0], self._x)
        else:
            x, y = to_float64(a, self._dtypes[0], self._x), to_float64(b, self._dtypes[1], self._y)
            self._add_unequal(*((_bits(a), _bits(b)) if same else (_bits(x), _bits(y))))
            self._add_differences(x, y)
        self._add_powers(x, y)

    def _add_unequal(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Count the elements whose bits differ: only in the sign of a zero, or in more."""
        unequal = a != b
        negative = 1 << 8 * a.itemsize - 1  # the bits of minus zero, which are the least signed number
        signed = f"i{a.itemsize}"
        zeros = 0
        if min(a.view(signed).min(), b.view(signed).min()) == -negative:
            zeros = int(np.count_nonzero(unequal & ((a | b) == a.dtype.type(negative))))
        self._signs += zeros
        self._unequal += int(np.count_nonzero(unequal)) - zeros

    def _add_differences(self, x: Doubles, y: Doubles) -> None:
        d = np.abs(np.subtract(x, y, out=self._d[: x.size]), out=self._d[: x.size])
        squared = dot(d, d)
        if not math.isfinite(squared):
            d = d[np.isfinite(d)]
            squared = dot(d, d)
        if d.size:
            self._squared += squared
            self._absolute += float(np.add.reduce(d))
            self._greatest = max(self._greatest, float(np.maximum.reduce(d)))

    def _add_powers(self, x: Doubles, y: Doubles) -> None:
        if self._pivot is None:
            self._pivot = choose_pivot(x[:PIVOT_SAMPLE])
        if self._pivot:
            x = np.subtract(x, self._pivot, out=x)
            y = x if y is x else np.subtract(y, self._pivot, out=y)
        scratch, sampled = self._d[: x.size], self._elements // BLOCK % SAMPLED == 0
        self._elements += x.size
        ours = power_sums(x, scratch, sampled=sampled)
        theirs = ours if y is x else power_sums(y, scratch, sampled=sampled)
        self._left, self._right = self._left + ours, self._right + theirs
        if not (ours.all_finite and theirs.all_finite):
            both = np.isfinite(x) & np.isfinite(y)
            x, y = x[both], y[both]
            ours, theirs = power_sums(x, x, sampled=False), power_sums(y, y, sampled=False)
        product = ours.second if y is x else dot(x, y)
        more = (ours.count, ours.first, theirs.first, ours.second, theirs.second, product)
        self._products = tuple(map(add, self._products, more))

    def result(self) -> PairStatistics:
        """The statistics of all elements added."""
        count, x, y, xx, yy, xy = self._products
        pivot = self._pivot or 0.0
        left = xx + 2 * pivot * x + count * pivot**2  # about 0
        right = yy + 2 * pivot * y + count * pivot**2
        ours, theirs = self._left.distribution(pivot), self._right.distribution(pivot)
        spread = (count * xx - x * x) * (count * yy - y * y)
        return PairStatistics(
            outcome=DIFFERENT if self._unequal else ZERO_SIGN if self._signs else BITWISE,
            left=ours,
            right=theirs,
            unequal=self._unequal,
            max_abs_diff=self._greatest if count else math.nan,
            mean_abs_diff=self._absolute / count if count else math.nan,
            relative_l2=math.sqrt(self._squared / left) if left > 0 else math.nan,
            cosine=_quotient(xy + pivot * (x + y) + count * pivot**2, left * right),
            correlation=_quotient(count * xy - x * y, spread if ours.std and theirs.std else 0.0),
        )


def _quotient(product: float, squares: float) -> float:
    """A cosine, clipped to [-1, 1]; NaN if one vector is zero."""
    return max(-1.0, min(1.0, product / math.sqrt(squares))) if squares > 0 else math.nan


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(f"u{values.itemsize}")


def paired_chunks(
    left: Iterable[memoryview], right: Iterable[memoryview], sizes: tuple[int, int]
) -> Iterator[tuple[memoryview, memoryview]]:
    """Chunks of both sides, cut to equal numbers of elements; ``sizes`` are the bytes of an element of each side."""
    theirs, rest = iter(right), memoryview(b"")
    for chunk in left:
        while len(chunk):
            if not len(rest):
                rest = next(theirs)
            count = min(len(chunk) // sizes[0], len(rest) // sizes[1])
            yield chunk[: count * sizes[0]], rest[: count * sizes[1]]
            chunk, rest = chunk[count * sizes[0] :], rest[count * sizes[1] :]


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor. ``outcome`` is one of `BITWISE`, `ZERO_SIGN`, `DIFFERENT`, `SHAPE`, `ONLY_LEFT`, `ONLY_RIGHT`.

    ``layer_type`` is one of `publish.compare.model.TYPES`; ``statistics`` is None if a side lacks the tensor or the
    shapes differ.
    """

    name: str
    layer_type: str
    left: ModelTensor | None
    right: ModelTensor | None
    outcome: str
    statistics: PairStatistics | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a comparison keeps of a model beside its tensors."""

    where: str
    format: str
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True)
class Comparison:
    """All tensors of both models, in the left one's order."""

    left: ModelFacts
    right: ModelFacts
    tensors: tuple[TensorComparison, ...]

    def count(self, outcome: str) -> int:
        return sum(tensor.outcome == outcome for tensor in self.tensors)

    @property
    def compared(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        """The tensors with statistics, by name."""
        return {tensor.name: (tensor, tensor.statistics) for tensor in self.tensors if tensor.statistics is not None}

    @property
    def common(self) -> int:
        """How many tensors both models have, whatever their shapes."""
        return sum(map(self.count, (BITWISE, ZERO_SIGN, DIFFERENT, SHAPE)))


def compare(left: OpenModel, right: OpenModel) -> Comparison:
    """Read both models once, a layer at a time, and compare the tensors that both have.

    Memory is bounded by the chunks in flight, whatever the models' sizes. Raises what reading raises.
    """
    ours, theirs = left.tensors, right.tensors
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    found: dict[str, PairStatistics] = {}
    scratch = Scratch()
    for names in by_layer(shared).values():
        left.prefetch(names)
        right.prefetch(names)
        for name in names:
            sums = PairSums(ours[name].dtype, theirs[name].dtype, scratch)
            sizes = (ours[name].itemsize, theirs[name].itemsize)
            for chunks in paired_chunks(left.chunks(name), right.chunks(name), sizes):
                sums.add(*chunks)
            found[name] = sums.result()
    tensors = [_compared(name, ours.get(name), theirs.get(name), found.get(name)) for name in {**ours, **theirs}]
    return Comparison(_facts_of(left), _facts_of(right), tuple(tensors))


def _compared(
    name: str, left: ModelTensor | None, right: ModelTensor | None, statistics: PairStatistics | None
) -> TensorComparison:
    if statistics is not None:
        outcome = statistics.outcome
    else:
        outcome = ONLY_LEFT if right is None else ONLY_RIGHT if left is None else SHAPE
    return TensorComparison(name, layer_type(name), left, right, outcome, statistics)


def _facts_of(model: OpenModel) -> ModelFacts:
    return ModelFacts(model.where, model.format, model.provenance)
