"""The streams of torch's generators, and how the values of a tensor compare with what a stream draws."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from publish.dtypes import DTYPES
from publish.explain import generators
from publish.explain.models import Bits, Shard
from publish.formats.dtypes import from_float32, to_float32
from publish.neox.state import CPU, CUDA, RandomState, decode

if TYPE_CHECKING:
    import torch

# In standard deviations: the float32 rounding of an angle up to 2 pi and the error of a GPU's fast sine and cosine
# (2^-21.4 and more beyond pi: CUDA programming guide, intrinsic functions), times a radius up to 6.7.
SLACK = 2.0**-16
HEAD = {CPU: 8, CUDA: 16}  # values at a tensor's start that are compared first
GROUP = 16  # torch's CPU normals are made in groups of this many
_BLOCK = 1 << 18  # elements that are compared at a time
_NEEDED = 3, 4  # the share of the first values that must fit
_SKIP = 1 << 20  # words that are drawn at a time to reach a position


@dataclass(frozen=True, slots=True)
class Tally:
    """How many values of one tensor are equal to the recomputed ones.

    ``one_apart``: they differ by one unit in the last place; ``near``: by more, within the error of a GPU's fast
    functions; ``wrong``: by more than that. ``first_unequal`` and ``first_wrong`` are indices.
    """

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
            _first_of(self.first_unequal, other.first_unequal),
            _first_of(self.first_wrong, other.first_wrong),
        )


def _first_of(left: int | None, right: int | None) -> int | None:
    return min((index for index in (left, right) if index is not None), default=None)


def tally(stored: Bits, expected: Bits, dtype: str, std: float, start: int = 0) -> Tally:
    """Compare two flat arrays of ``dtype``; ``start`` is the index of their first element in the tensor."""
    blocks = (slice(at, at + _BLOCK) for at in range(0, stored.size, _BLOCK))
    return sum((_tally(stored[at], expected[at], dtype, std, start + at.start) for at in blocks), Tally())


def _tally(stored: Bits, expected: Bits, dtype: str, std: float, start: int) -> Tally:
    same = stored.view(f"u{stored.itemsize}") == expected.view(f"u{expected.itemsize}")
    equal = int(np.count_nonzero(same))
    if equal == stored.size:
        return Tally(equal, equal)
    unequal = np.flatnonzero(~same)
    left, right = stored[unequal], expected[unequal]
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(to_float32(left, dtype) - to_float32(right, dtype)) <= np.float32(SLACK * std)
    one_apart = np.abs(_ordered(left) - _ordered(right)) <= 1
    wrong = ~one_apart & ~close
    first_wrong = int(unequal[np.argmax(wrong)]) + start if wrong.any() else None
    one, near, far = (int(np.count_nonzero(which)) for which in (one_apart, ~one_apart & close, wrong))
    return Tally(stored.size, equal, one, near, far, int(unequal[0]) + start, first_wrong)


def _ordered(values: Bits) -> NDArray[np.int64]:
    """Integers in the order of the numbers: neighbours are one apart, both zeros are 0."""
    bits = values.view(f"u{values.itemsize}").astype(np.int64)
    sign = 1 << (8 * values.itemsize - 1)
    return np.where(bits & sign, -(bits ^ sign), bits)


def scaled(normals: NDArray[np.float32], shard: Shard) -> Bits:
    """Standard normals as the shard would store them."""
    return from_float32(normals * np.float32(shard.std), shard.dtype)


def fit(normals: NDArray[np.float32], head: NDArray[np.float32], std: float, dtype: str) -> NDArray[np.bool_]:
    """Which rows of ``normals`` (..., count) may have produced ``head`` (the same shape, or broadcast).

    A value fits within a unit and a half in the last place, since it was rounded twice. Three quarters must fit: a few
    changed values at a tensor's start do not hide it.
    """
    finest = 2.0**-24 if dtype == "float16" else 0
    with np.errstate(invalid="ignore", over="ignore"):
        slack = np.float32(1.5 * DTYPES[dtype].ulp) * np.abs(head) + np.float32(SLACK * std + finest)
        hits = np.abs(normals * np.float32(std) - head) <= slack
    found: NDArray[np.bool_] = hits.sum(axis=-1) * _NEEDED[1] >= hits.shape[-1] * _NEEDED[0]
    return found


class Stream(Protocol):
    """A seeded generator. ``position`` is where a tensor is drawn: 32-bit words on a CPU, the offset on a GPU."""

    seed: int

    def after(self, shard: Shard, position: int) -> int:
        """The position after the shard is drawn."""
        ...

    def matches(self, shard: Shard, position: int) -> bool:
        """Whether the shard's first values fit what is drawn there; cheap."""
        ...

    def tally(self, shard: Shard, position: int) -> Tally:
        """Compare every value of the shard with what is drawn there."""
        ...

    def state(self, position: int) -> RandomState:
        """The generator's state there."""
        ...


class CpuStream:
    """torch's CPU generator; ascending positions are cheap, since the generator starts again for an earlier one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._at = 0

    def after(self, shard: Shard, position: int) -> int:
        return position + words_for(shard.elements)

    def matches(self, shard: Shard, position: int) -> bool:
        head = shard.head(HEAD[CPU])
        normals = generators.cpu_heads(np.array([self.seed], np.uint64), position, head.size)
        return bool(fit(normals, head, shard.std, shard.dtype)[0])

    def tally(self, shard: Shard, position: int) -> Tally:
        import torch

        generator = self._generator_at(position)
        drawn = torch.empty(shard.shape, dtype=getattr(torch, shard.dtype))
        drawn.normal_(0, shard.std, generator=generator)
        self._at = self.after(shard, position)
        return tally(shard.read(None).reshape(-1), bits_of(drawn), shard.dtype, shard.std)

    def state(self, position: int) -> RandomState:
        found = decode(self._generator_at(position).get_state().numpy().tobytes())
        assert found is not None
        return found

    def _generator_at(self, position: int) -> torch.Generator:
        import torch

        if self._generator is None or position < self._at:
            self._generator, self._at = torch.Generator().manual_seed(self.seed), 0
        while self._at < position:
            step = min(_SKIP, position - self._at)
            torch.rand(step, generator=self._generator)  # one word a number, as for normals
            self._at += step
        return self._generator


def words_for(elements: int) -> int:
    """The words that ``normal_`` consumes: one a value, and 16 more for a last group that is not full."""
    return elements + (GROUP if elements % GROUP and elements > GROUP else 0)


def bits_of(tensor: torch.Tensor) -> Bits:
    """A flat numpy view of a tensor; bfloat16 as uint16."""
    import torch

    flat = tensor.reshape(-1)
    if tensor.dtype == torch.bfloat16:
        bits: np.ndarray[Any, Any] = flat.view(torch.int16).numpy().view(np.uint16)
        return bits
    return flat.numpy()


class CudaStream:
    """torch's CUDA generator on a GPU with ``resident`` threads."""

    def __init__(self, seed: int, resident: int) -> None:
        self.seed = seed
        self.resident = resident

    def after(self, shard: Shard, position: int) -> int:
        return position + generators.advance(shard.elements, self.resident)

    def matches(self, shard: Shard, position: int) -> bool:
        head = shard.head(HEAD[CUDA])
        normals = generators.gpu_heads(self.seed, np.array([position]), head.size)
        return bool(fit(normals, head, shard.std, shard.dtype)[0])

    def tally(self, shard: Shard, position: int) -> Tally:
        stored = shard.read(None).reshape(-1)
        total = Tally()
        for start, normals in generators.standard_normals(self.seed, position, shard.elements, self.resident):
            part = stored[start : start + normals.size]
            total += tally(part, scaled(normals, shard), shard.dtype, shard.std, start)
        return total

    def state(self, position: int) -> RandomState:
        return RandomState(CUDA, self.seed, position, struct.pack("<Qq", self.seed, position))


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where rank 0's first tensor was drawn: the ``position`` in the stream of ``seed``.

    ``resident`` are the threads of the GPU. If no tensor is large enough to reveal them, ``threads_known`` is False and
    they are the fewest that give the same numbers.
    """

    generator: str
    seed: int
    position: int
    resident: int = 0
    threads_known: bool = True

    def stream(self, seed: int) -> Stream:
        """A stream of this kind, on this GPU, of any seed."""
        return CpuStream(seed) if self.generator == CPU else CudaStream(seed, self.resident)


def positions(shards: Mapping[str, Shard], stream: Stream, start: int = 0) -> dict[str, int]:
    """Where each tensor is drawn if the first one is drawn at ``start``; the end under the empty name."""
    found = {}
    for name, shard in shards.items():
        found[name] = start
        start = stream.after(shard, start)
    found[""] = start
    return found
