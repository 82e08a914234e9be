"""The sketch of a step's weights, which ``publish.json`` stores: digests, distributions, the bits at a fixed sample.

It is taken while a step is written, so no weight is read again for it.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.compare.model import RANDOM, layer_type
from publish.compare.pair import (
    BLOCK,
    PIVOT_SAMPLE,
    SAMPLED,
    Distribution,
    Doubles,
    PowerSums,
    aligned_buffer,
    as_array,
    choose_pivot,
    power_sums,
    to_float64,
)
from publish.convert.plan import ConversionPlan, Recipe
from publish.convert.writer import Digest
from publish.dtypes import BY_SAFETENSORS, DTYPES
from publish.errors import HubError
from publish.verify.gates import NonFinite, count_non_finite

BUDGET = 4096  # sampled values of all matrices together
VECTOR = 16  # sampled values of each vector: norms and biases are many and small
_GOLDEN = (math.sqrt(5) - 1) / 2
_PIECE = 1 << 16  # elements that are searched for a negative zero at a time: they stay in the processor's cache
_DIGITS = 9  # of a stored figure: more would depend on the machine


@dataclass(frozen=True)
class TensorSketch:
    """One tensor of one step. ``unsigned`` is the digest with every zero made positive.

    ``mean`` and ``std`` are those of every sixteenth block of 32,768 values; a small tensor is one block. ``bits`` are
    the stored values at `sample_indices`.
    """

    name: str
    dtype: str
    elements: int
    digest: str
    unsigned: str
    mean: float
    std: float
    bits: bytes

    @property
    def matrix(self) -> bool:
        """Whether initialisation draws the tensor: an embedding, a projection."""
        return layer_type(self.name) in RANDOM

    @property
    def distribution(self) -> Distribution:
        """The distribution, all elements taken as finite."""
        return Distribution(self.elements, self.elements, 0, 0, self.mean, self.std, math.nan)

    @cached_property
    def sample(self) -> Doubles:
        """The sampled values."""
        stored = as_array(memoryview(self.bits), self.dtype)
        return to_float64(stored, self.dtype, np.empty(stored.size))


StepSketch = Mapping[str, TensorSketch]


@lru_cache(maxsize=1024)
def sample_indices(elements: int, count: int) -> NDArray[np.int64]:
    """``count`` indices below ``elements``, ascending: one in each of as many equal parts, by the golden ratio."""
    count = min(elements, count)
    edges = np.arange(count + 1, dtype=np.int64) * elements // max(1, count)
    within = np.modf((np.arange(count) + 1) * _GOLDEN)[0]
    indices: NDArray[np.int64] = edges[:-1] + (within * np.diff(edges)).astype(np.int64)
    indices.flags.writeable = False  # shared by all steps of a run
    return indices


@lru_cache(maxsize=4096)
def _indices_in_chunk(elements: int, count: int, at: int, size: int) -> NDArray[np.int64]:
    """Those of the indices that are among ``size`` elements from ``at`` on, counted from there."""
    indices = sample_indices(elements, count)
    first, last = np.searchsorted(indices, [at, at + size])
    found: NDArray[np.int64] = indices[first:last] - at
    found.flags.writeable = False
    return found


class Sketcher:
    """Takes a step's sketch while the writer writes: pass it as ``observer``, then call ``result``."""

    def __init__(self, plan: ConversionPlan) -> None:
        matrices = sum(layer_type(recipe.name) in RANDOM for recipe in plan.recipes)
        self._share = max(VECTOR, BUDGET // max(1, matrices))
        self._scratch = (aligned_buffer(), aligned_buffer())
        self._tensors: dict[str, _TensorSketcher] = {}

    def __call__(self, recipe: Recipe, chunk: memoryview, digest: Digest) -> None:
        if recipe.name not in self._tensors:
            count = self._share if layer_type(recipe.name) in RANDOM else VECTOR
            self._tensors[recipe.name] = _TensorSketcher(recipe, digest, count)
        with np.errstate(invalid="ignore", over="ignore"):
            self._tensors[recipe.name].add(chunk, *self._scratch)

    @property
    def counts(self) -> dict[str, NonFinite]:
        """How many values are not finite, by tensor."""
        return {name: sketcher.counts for name, sketcher in self._tensors.items()}

    def result(self) -> dict[str, TensorSketch]:
        """The sketch of everything written."""
        return {name: sketcher.result() for name, sketcher in self._tensors.items()}


class _TensorSketcher:
    def __init__(self, recipe: Recipe, digest: Digest, count: int) -> None:
        self._recipe, self._count = recipe, count
        self._digest = digest  # the writer updates it after each chunk
        self._unsigned: Digest | None = None
        self._at, self._pivot, self._sums = 0, 0.0, PowerSums()
        self._sample: list[bytes] = []
        self.counts = NonFinite(0, 0, 0)

    def add(self, chunk: memoryview, values: Doubles, scratch: Doubles) -> None:
        dtype = self._recipe.dtype
        held = as_array(chunk, dtype)
        self._hash_unsigned(held.view(f"u{held.itemsize}"))
        indices = _indices_in_chunk(self._recipe.elements, self._count, self._at, held.size)
        self._sample.append(held[indices].tobytes())
        counts = count_non_finite(chunk, dtype)
        self.counts = self.counts.plus(counts) if self._at else counts
        for start, end in _sampled_blocks(self._at, held.size):
            block = to_float64(held[start:end], dtype, values)
            if not self._at and not start:
                self._pivot = choose_pivot(block[:PIVOT_SAMPLE])
            if self._pivot:
                np.subtract(block, self._pivot, out=block)
            self._sums += power_sums(block, scratch[: block.size], sampled=False)
        self._at += held.size

    def _hash_unsigned(self, bits: NDArray[Any]) -> None:
        """Update the second digest, which begins to differ at the first negative zero."""
        negative = 1 << 8 * bits.itemsize - 1  # the bits of minus zero, which are the least signed number
        if bits.view(f"i{bits.itemsize}").min(initial=0) > -negative:
            if self._unsigned is not None:
                self._unsigned.update(bits.data)
            return
        if self._unsigned is None:
            self._unsigned = self._digest.copy()
        for start in range(0, bits.size, _PIECE):
            piece = bits[start : start + _PIECE]
            signed = piece.view(f"i{bits.itemsize}").min() == -negative
            self._unsigned.update(_clear_signs(piece, negative).data if signed else piece.data)

    def result(self) -> TensorSketch:
        found, recipe = self._sums.distribution(self._pivot), self._recipe
        digest = self._digest.hexdigest()
        return TensorSketch(
            recipe.name,
            recipe.dtype,
            recipe.elements,
            digest,
            digest if self._unsigned is None else self._unsigned.hexdigest(),
            _rounded(found.mean),
            _rounded(found.std),
            b"".join(self._sample),
        )


def _clear_signs(bits: NDArray[Any], negative: int) -> NDArray[Any]:
    """A copy in which every zero is positive; ``negative`` are the bits of minus zero."""
    cleared = bits.copy()
    cleared[bits == negative] = 0
    return cleared


def _sampled_blocks(at: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a chunk that are in every `SAMPLED`th block of the tensor; the chunk begins at element ``at``."""
    for block in range(at // BLOCK, -(-(at + size) // BLOCK)):
        if block % SAMPLED == 0:
            yield max(0, block * BLOCK - at), min(size, (block + 1) * BLOCK - at)


def common_tensors(left: StepSketch, right: StepSketch) -> Sequence[tuple[TensorSketch, TensorSketch]]:
    """The tensors that both sketches have with the same size and dtype."""
    pairs = ((tensor, right[name]) for name, tensor in left.items() if name in right)
    return [(one, other) for one, other in pairs if (one.elements, one.dtype) == (other.elements, other.dtype)]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def document(sketch: StepSketch) -> dict[str, Any]:
    """The sketch as JSON, the sampled bits in base64."""
    return {
        name: {
            "dtype": DTYPES[tensor.dtype].safetensors,
            "elements": tensor.elements,
            "xxh3": tensor.digest,
            **({"xxh3_unsigned_zeros": tensor.unsigned} if tensor.unsigned != tensor.digest else {}),
            "mean": None if math.isnan(tensor.mean) else tensor.mean,
            "std": None if math.isnan(tensor.std) else tensor.std,
            "sample": base64.b64encode(tensor.bits).decode(),
        }
        for name, tensor in sketch.items()
    }


def from_document(found: Mapping[str, Any], where: object) -> dict[str, TensorSketch]:
    """The sketch that :func:`document` wrote.

    Raises:
        HubError: the JSON is not such a document.
    """
    try:
        return {name: _tensor(name, BY_SAFETENSORS[entry["dtype"]].name, entry) for name, entry in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise HubError(f"the statistics cannot be read: {error!r}", where, "publish the step again") from error


def _tensor(name: str, dtype: str, entry: Mapping[str, Any]) -> TensorSketch:
    digest, mean, std = str(entry["xxh3"]), entry["mean"], entry["std"]
    return TensorSketch(
        name,
        dtype,
        int(entry["elements"]),
        digest,
        str(entry.get("xxh3_unsigned_zeros", digest)),
        math.nan if mean is None else float(mean),
        math.nan if std is None else float(std),
        base64.b64decode(entry["sample"], validate=True),
    )
