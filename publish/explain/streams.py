"""A generator with a place in its stream: what a tensor's values would be there, and where the next one begins.

A CPU's position counts 32-bit words, a GPU's is the generator's offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from publish.explain import cpu_generator, cuda_generator
from publish.explain.construction import may_begin_a_stage
from publish.explain.matching import Tally, fit, scaled, tally
from publish.explain.subject import Bits, Shard, Subject
from publish.neox.state import CPU, CUDA, RandomState, decode

if TYPE_CHECKING:
    import torch


HEAD = {CPU: 8, CUDA: 16}  # values of a tensor's start that are compared first
GROUP = 16  # torch's CPU normals are made in groups of this many
_SKIP = 1 << 20


class Stream(Protocol):
    """One generator, seeded; ``position`` is where a tensor is drawn."""

    seed: int

    def after(self, shard: Shard, position: int) -> int:
        """The position after the shard was drawn."""
        ...

    def matches(self, shard: Shard, position: int) -> bool:
        """Whether the shard begins as if drawn there; cheap."""
        ...

    def tally(self, shard: Shard, position: int) -> Tally:
        """Every value of the shard against what is drawn there."""
        ...

    def state(self, position: int) -> RandomState:
        """The generator's state there."""
        ...


class CpuStream:
    """torch's own CPU generator; positions are asked for in ascending order, or it starts anew."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._at = 0

    def after(self, shard: Shard, position: int) -> int:
        return position + words_for(shard.elements)

    def matches(self, shard: Shard, position: int) -> bool:
        head = shard.head(HEAD[CPU])
        normals = cpu_generator.heads(np.array([self.seed], np.uint64), position, head.size)
        return bool(fit(normals, head, shard.std, shard.dtype)[0])

    def tally(self, shard: Shard, position: int) -> Tally:
        import torch

        generator = self._moved(position)
        drawn = torch.empty(shard.shape, dtype=getattr(torch, shard.dtype))
        drawn.normal_(0, shard.std, generator=generator)
        self._at = self.after(shard, position)
        return tally(shard.read(None).reshape(-1), bits_of(drawn), shard.dtype, shard.std)

    def state(self, position: int) -> RandomState:
        found = decode(self._moved(position).get_state().numpy().tobytes())
        assert found is not None
        return found

    def _moved(self, position: int) -> torch.Generator:
        import torch

        if self._generator is None or position < self._at:
            self._generator, self._at = torch.Generator().manual_seed(self.seed), 0
        while self._at < position:
            step = min(_SKIP, position - self._at)
            torch.rand(step, generator=self._generator)  # one word a number, as normals take them
            self._at += step
        return self._generator


def words_for(elements: int) -> int:
    """Words that ``normal_`` takes: one a value, and 16 more for a last group that is not full."""
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
    """CUDA's generator on a GPU with ``resident`` threads."""

    def __init__(self, seed: int, resident: int) -> None:
        self.seed = seed
        self.resident = resident

    def after(self, shard: Shard, position: int) -> int:
        return position + cuda_generator.advance(shard.elements, self.resident)

    def matches(self, shard: Shard, position: int) -> bool:
        head = shard.head(HEAD[CUDA])
        normals = cuda_generator.heads(self.seed, np.array([position]), head.size)
        return bool(fit(normals, head, shard.std, shard.dtype)[0])

    def tally(self, shard: Shard, position: int) -> Tally:
        stored = shard.read(None).reshape(-1)
        total = Tally()
        for start, normals in cuda_generator.standard_normals(self.seed, position, shard.elements, self.resident):
            part = stored[start : start + normals.size]
            total += tally(part, scaled(normals, shard), shard.dtype, shard.std, start)
        return total

    def state(self, position: int) -> RandomState:
        return RandomState(CUDA, self.seed, position, struct.pack("<Qq", self.seed, position))


# A generator, and where in its stream the first tensor lies.


@dataclass(frozen=True, slots=True)
class Place:
    """``position`` is that of rank 0's first tensor in the stream of ``seed`` (words on a CPU, offset on a GPU).

    ``resident`` are the threads of the GPU; ``told``: some tensor is large enough to tell them, else they are the
    fewest that make no difference.
    """

    generator: str
    seed: int
    position: int
    resident: int = 0
    told: bool = True

    def stream(self, seed: int) -> Stream:
        """A stream of this kind, on this GPU, of another seed."""
        return CpuStream(seed) if self.generator == CPU else CudaStream(seed, self.resident)


# One rank's tensors in the order of construction against a stream, value by value.


# gpt-neox megatron/initialize.py: a pipeline's inner stages have a seed of their own, the first and last do not
_INNER_STAGE = 1138


@dataclass(frozen=True, slots=True)
class Walked:
    """What one rank's tensors were found to be.

    ``ends`` are the generators' states afterwards, one for each pipeline stage; ``begins`` names the tensors at which
    stages after the first begin.
    """

    tallies: Mapping[str, Tally]
    ends: tuple[RandomState, ...]
    begins: tuple[str, ...] = ()


def walk(subject: Subject, rank: int, stream: Stream, position: int, open_stream: Callable[[int], Stream]) -> Walked:
    """Draw every tensor of ``rank`` from ``stream``, whose first lies at ``position``, and compare.

    Where a pipeline may have a boundary and the values do not go on, a stage that starts its own generator
    (``open_stream`` of its seed) is looked for.
    """
    tallies: dict[str, Tally] = {}
    ends: list[RandomState] = []
    begins: list[str] = []
    seed = stream.seed
    for shard in subject.shards[rank].values():
        found = stream.tally(shard, position)
        if tallies and subject.stages != 1 and may_begin_a_stage(shard.name) and 2 * found.equal < found.values:
            inner = seed + _INNER_STAGE + (len(ends) + 1) * subject.tensor_parallel
            fresh = next((each for each in map(open_stream, (inner, seed)) if each.matches(shard, 0)), None)
            if fresh is not None:
                ends.append(stream.state(position))
                begins.append(shard.shown)
                stream, position = fresh, 0
                found = stream.tally(shard, position)
        tallies[shard.name] = found
        position = stream.after(shard, position)
    if ends and subject.tied:  # the last stage builds the embedding too, and then takes over the first one's values
        position = stream.after(subject.first, position)
    return Walked(tallies, (*ends, stream.state(position)), tuple(begins))


def positions(shards: Mapping[str, Shard], stream: Stream, start: int = 0) -> dict[str, int]:
    """Where each tensor lies in the stream when the first one lies at ``start``; the end under the empty name."""
    found = {}
    for name, shard in shards.items():
        found[name] = start
        start = stream.after(shard, start)
    found[""] = start
    return found
