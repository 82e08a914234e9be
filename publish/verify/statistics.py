"""Numbers about tensors, chunk by chunk as they pass: how many are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

    def plus(self, more: NotFinite) -> NotFinite:
        """Both together."""
        return NotFinite(self.elements + more.elements, self.nans + more.nans, self.infinities + more.infinities)


def count_not_finite(data: memoryview | bytes, dtype: str) -> NotFinite:
    """Count in little-endian bytes of ``dtype`` (float16, bfloat16, float32), by their bits.

    What is not finite is at least infinity as a signed number, or at least minus infinity as an unsigned one: two
    maxima tell, without a copy, that there is none.
    """
    kind, infinity = _BITS[dtype]
    bits = np.frombuffer(data, kind)
    sign = 1 << (bits.itemsize * 8 - 1)
    nans = infinities = 0
    if bits.size and (bits.view(f"i{bits.itemsize}").max() >= infinity or bits.max() >= sign | infinity):
        for start in range(0, bits.size, _BLOCK):
            magnitude = bits[start : start + _BLOCK] & kind(sign - 1)
            nans += int(np.count_nonzero(magnitude > infinity))
            infinities += int(np.count_nonzero(magnitude == infinity))
    return NotFinite(bits.size, nans, infinities)


class FiniteObserver:
    """Counts while the writer writes: pass it as ``observer``, then ask ``counts`` (by Hugging Face name)."""

    def __init__(self) -> None:
        self.counts: dict[str, NotFinite] = {}

    def __call__(self, recipe: Recipe, chunk: memoryview, _digest: object) -> None:
        so_far = self.counts.get(recipe.name, NotFinite(0, 0, 0))
        self.counts[recipe.name] = so_far.plus(count_not_finite(chunk, recipe.dtype))
