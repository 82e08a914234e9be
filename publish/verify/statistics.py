"""Numbers about tensors, chunk by chunk as they pass: how many are not finite, and their distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from publish.convert.recipes import Recipe

_BLOCK = 1 << 16  # elements at a time: they stay in the processor's cache
_BITS: Mapping[str, tuple[type[Any], int]] = {  # unsigned type, bits of infinity
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
    "float32": (np.uint32, 0x7F800000),
}


@dataclass(frozen=True, slots=True)
class NotFinite:
    """How many elements of a tensor are NaN or infinite."""

    elements: int
    nans: int
    infinities: int


def count_not_finite(data: memoryview | bytes, dtype: str) -> NotFinite:
    """Count in little-endian bytes of ``dtype`` (float16, bfloat16, float32), by their bits.

    What is not finite is at least infinity as a signed number, or at least minus infinity as an unsigned one: two
    maxima tell, without a copy, that a block has none.
    """
    kind, infinity = _BITS[dtype]
    bits = np.frombuffer(data, kind)
    sign = 1 << (bits.itemsize * 8 - 1)
    nans = infinities = 0
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if block.view(f"i{bits.itemsize}").max() >= infinity or block.max() >= sign | infinity:
            magnitude = block & kind(sign - 1)
            nans += int(np.count_nonzero(magnitude > infinity))
            infinities += int(np.count_nonzero(magnitude == infinity))
    return NotFinite(bits.size, nans, infinities)


class FiniteObserver:
    """Counts while the writer writes: pass it as ``observer``, then ask ``counts`` (by Hugging Face name)."""

    def __init__(self) -> None:
        self.counts: dict[str, NotFinite] = {}

    def __call__(self, recipe: Recipe, chunk: memoryview) -> None:
        more = count_not_finite(chunk, recipe.dtype)
        so_far = self.counts.get(recipe.name, NotFinite(0, 0, 0))
        self.counts[recipe.name] = NotFinite(
            so_far.elements + more.elements, so_far.nans + more.nans, so_far.infinities + more.infinities
        )


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """A tensor's distribution; ``mean``, ``std`` (of the population), ``least``, ``greatest`` are over finite elements.

    They are NaN where there is none. ``zeros`` counts both signs.
    """

    elements: int
    finite: int
    zeros: int
    mean: float
    std: float
    least: float
    greatest: float


class Accumulator:
    """Statistics of one tensor whose elements come in chunks; sums in float64.

    Means and squared deviations of the blocks are merged by Chan's formula, so large means lose nothing.
    """

    def __init__(self) -> None:
        self._elements = self._finite = self._zeros = 0
        self._mean = self._squares = 0.0
        self._least, self._greatest = math.inf, -math.inf

    def add(self, data: memoryview | bytes, dtype: str) -> None:
        """Little-endian bytes of ``dtype``."""
        bits = np.frombuffer(data, _BITS[dtype][0])
        for start in range(0, bits.size, _BLOCK):
            self._add(_numbers(bits[start : start + _BLOCK], dtype))

    def _add(self, numbers: NDArray[np.float64]) -> None:
        self._elements += numbers.size
        finite = numbers[np.isfinite(numbers)]
        if not finite.size:
            return
        mean = float(finite.mean())
        total = self._finite + finite.size
        apart = mean - self._mean
        self._squares += float(np.square(finite - mean).sum()) + apart * apart * self._finite * finite.size / total
        self._mean += apart * finite.size / total
        self._finite = total
        self._zeros += int(np.count_nonzero(finite == 0))
        self._least = min(self._least, float(finite.min()))
        self._greatest = max(self._greatest, float(finite.max()))

    def result(self) -> TensorStatistics:
        if not self._finite:
            return TensorStatistics(self._elements, 0, 0, math.nan, math.nan, math.nan, math.nan)
        std = math.sqrt(self._squares / self._finite)
        return TensorStatistics(self._elements, self._finite, self._zeros, self._mean, std, self._least, self._greatest)


def _numbers(bits: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    if dtype == "bfloat16":
        bits = bits.astype(np.uint32) << np.uint32(16)
    return bits.view(np.float16 if dtype == "float16" else np.float32).astype(np.float64)
