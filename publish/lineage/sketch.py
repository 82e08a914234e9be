"""A sketch as ``publish.json`` keeps it."""

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

from publish.compare.layers import RANDOM, layer_type
from publish.compare.pair import (
    BLOCK,
    SAMPLED,
    Distribution,
    Doubles,
    PowerSums,
    choose_pivot,
    doubles,
    numbers,
    power_sums,
    room,
)
from publish.convert.plan import ConversionPlan, Recipe
from publish.convert.writer import Digest
from publish.errors import HubError
from publish.formats.dtypes import SAFETENSORS
from publish.verify.gates import NonFinite, count_non_finite

# What a step's manifest keeps of its weights: digests, distributions, and the bits at a fixed sample of places.


BUDGET = 4096  # sampled values of all matrices together
VECTOR = 16  # and of a vector: norms and biases are many and small
_GOLDEN = (math.sqrt(5) - 1) / 2
_FIRST = 256  # elements that choose the pivot
_PIECE = 1 << 16  # elements that are searched for a negative zero at a time: they stay in the processor's cache
_DIGITS = 9  # of a stored figure: more depend on the machine that summed


@dataclass(frozen=True)
class TensorSketch:
    """One tensor of one step. ``unsigned`` is the digest with every zero positive, equal to ``digest`` without such.

    ``mean`` and ``std`` are those of every sixteenth block of 32,768 values, which is all of a small tensor.
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
        """Whether initialisation draws it: an embedding, a projection."""
        return layer_type(self.name) in RANDOM

    @property
    def distribution(self) -> Distribution:
        """Its finite elements, all of them where nothing else is known."""
        return Distribution(self.elements, self.elements, 0, 0, self.mean, self.std, math.nan)

    @cached_property
    def sample(self) -> Doubles:
        """The values at the sampled places."""
        held = numbers(memoryview(self.bits), self.dtype)
        return doubles(held, self.dtype, np.empty(held.size))


StepSketch = Mapping[str, TensorSketch]


@lru_cache(maxsize=1024)
def places(elements: int, count: int) -> NDArray[np.int64]:
    """``count`` places out of ``elements``, ascending: one in each of as many equal parts, by the golden ratio."""
    count = min(elements, count)
    edges = np.arange(count + 1, dtype=np.int64) * elements // max(1, count)
    within = np.modf((np.arange(count) + 1) * _GOLDEN)[0]
    at: NDArray[np.int64] = edges[:-1] + (within * np.diff(edges)).astype(np.int64)
    at.flags.writeable = False  # all steps of a run share it
    return at


@lru_cache(maxsize=4096)
def _within(elements: int, count: int, at: int, size: int) -> NDArray[np.int64]:
    """Those of the places that lie in ``size`` elements from ``at`` on, counted from there."""
    wanted = places(elements, count)
    first, last = np.searchsorted(wanted, [at, at + size])
    found: NDArray[np.int64] = wanted[first:last] - at
    found.flags.writeable = False
    return found


class Sketcher:
    """Draws a step's sketch while the writer writes: pass it as ``observer``, then ask for ``result``."""

    def __init__(self, plan: ConversionPlan) -> None:
        matrices = sum(layer_type(recipe.name) in RANDOM for recipe in plan.recipes)
        self._share = max(VECTOR, BUDGET // max(1, matrices))
        self._scratch = (room(), room())
        self._drawn: dict[str, _Drawing] = {}

    def __call__(self, recipe: Recipe, chunk: memoryview, digest: Digest) -> None:
        if recipe.name not in self._drawn:
            count = self._share if layer_type(recipe.name) in RANDOM else VECTOR
            self._drawn[recipe.name] = _Drawing(recipe, digest, count)
        with np.errstate(invalid="ignore", over="ignore"):
            self._drawn[recipe.name].add(chunk, *self._scratch)

    @property
    def counts(self) -> dict[str, NonFinite]:
        """What was not finite, by tensor."""
        return {name: drawing.counts for name, drawing in self._drawn.items()}

    def result(self) -> dict[str, TensorSketch]:
        """The sketch of all that was written."""
        return {name: drawing.result() for name, drawing in self._drawn.items()}


class _Drawing:
    """One tensor's sketch in the making."""

    def __init__(self, recipe: Recipe, digest: Digest, count: int) -> None:
        self._recipe, self._count = recipe, count
        self._own = digest  # the writer's
        self._unsigned: Digest | None = None
        self._at, self._pivot, self._sums = 0, 0.0, PowerSums()
        self._sample: list[bytes] = []
        self.counts = NonFinite(0, 0, 0)

    def add(self, chunk: memoryview, values: Doubles, scratch: Doubles) -> None:
        dtype = self._recipe.dtype
        held = numbers(chunk, dtype)
        self._unsign(held.view(f"u{held.itemsize}"))
        self._sample.append(held[_within(self._recipe.elements, self._count, self._at, held.size)].tobytes())
        counts = count_non_finite(chunk, dtype)
        self.counts = self.counts.plus(counts) if self._at else counts
        for start, end in _sampled(self._at, held.size):
            block = doubles(held[start:end], dtype, values)
            if not self._at and not start:
                self._pivot = choose_pivot(block[:_FIRST])
            if self._pivot:
                np.subtract(block, self._pivot, out=block)
            self._sums = self._sums.plus(power_sums(block, scratch[: block.size], sampled=False))
        self._at += held.size

    def _unsign(self, bits: NDArray[Any]) -> None:
        """The second digest, which is kept apart from the first negative zero on."""
        negative = 1 << 8 * bits.itemsize - 1  # as a signed number it is the least
        if bits.view(f"i{bits.itemsize}").min(initial=0) > -negative:
            if self._unsigned is not None:
                self._unsigned.update(bits.data)
            return
        if self._unsigned is None:
            self._unsigned = self._own.copy()
        for start in range(0, bits.size, _PIECE):
            piece = bits[start : start + _PIECE]
            signed = piece.view(f"i{bits.itemsize}").min() == -negative
            self._unsigned.update(_positive(piece, negative).data if signed else piece.data)

    def result(self) -> TensorSketch:
        found, recipe = self._sums.about(self._pivot), self._recipe
        own = self._own.hexdigest()
        return TensorSketch(
            recipe.name,
            recipe.dtype,
            recipe.elements,
            own,
            own if self._unsigned is None else self._unsigned.hexdigest(),
            _rounded(found.mean),
            _rounded(found.std),
            b"".join(self._sample),
        )


def _positive(bits: NDArray[Any], negative: int) -> NDArray[Any]:
    """A copy in which every zero is positive; ``negative`` are the bits of one that is not."""
    cleared = bits.copy()
    cleared[bits == negative] = 0
    return cleared


def _sampled(at: int, size: int) -> Iterator[tuple[int, int]]:
    """Of a chunk that begins at element ``at``: the parts in every `SAMPLED`th block of its tensor."""
    for block in range(at // BLOCK, -(-(at + size) // BLOCK)):
        if block % SAMPLED == 0:
            yield max(0, block * BLOCK - at), min(size, (block + 1) * BLOCK - at)


def common(left: StepSketch, right: StepSketch) -> Sequence[tuple[TensorSketch, TensorSketch]]:
    """The tensors that both sketches hold alike, side by side."""
    pairs = ((each, right[name]) for name, each in left.items() if name in right)
    return [(one, other) for one, other in pairs if (one.elements, one.dtype) == (other.elements, other.dtype)]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def document(sketch: StepSketch) -> dict[str, Any]:
    """A sketch for ``publish.json``, the sampled bits in base64."""
    return {
        name: {
            "dtype": SAFETENSORS[each.dtype],
            "elements": each.elements,
            "xxh3": each.digest,
            **({"xxh3_unsigned_zeros": each.unsigned} if each.unsigned != each.digest else {}),
            "mean": None if math.isnan(each.mean) else each.mean,
            "std": None if math.isnan(each.std) else each.std,
            "sample": base64.b64encode(each.bits).decode(),
        }
        for name, each in sketch.items()
    }


def from_document(found: Mapping[str, Any], where: object) -> dict[str, TensorSketch]:
    """The sketch that :func:`document` made.

    Raises:
        HubError: it is another one's, or was edited.
    """
    names = {short: long for long, short in SAFETENSORS.items()}
    try:
        return {name: _tensor(name, names[each["dtype"]], each) for name, each in found.items()}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise HubError(f"the statistics cannot be read: {error!r}", where, "publish the step again") from error


def _tensor(name: str, dtype: str, each: Mapping[str, Any]) -> TensorSketch:
    digest, mean, std = str(each["xxh3"]), each["mean"], each["std"]
    return TensorSketch(
        name,
        dtype,
        int(each["elements"]),
        digest,
        str(each.get("xxh3_unsigned_zeros", digest)),
        math.nan if mean is None else float(mean),
        math.nan if std is None else float(std),
        base64.b64decode(each["sample"], validate=True),
    )
