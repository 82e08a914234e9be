"""A generator with a place in its stream: what a tensor's values would be there, and where the next one begins.

A CPU's position counts 32-bit words, a GPU's is the generator's offset.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from publish.explain import cuda, mersenne
from publish.explain.matching import Tally, fit, scaled, tally
from publish.explain.subject import Bits, Shard
from publish.neox.randomstate import CPU, CUDA, RandomState, decode

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
        normals = mersenne.heads(np.array([self.seed], np.uint64), position, head.size)
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
        return position + cuda.advance(shard.elements, self.resident)

    def matches(self, shard: Shard, position: int) -> bool:
        head = shard.head(HEAD[CUDA])
        normals = cuda.heads(self.seed, np.array([position]), head.size)
        return bool(fit(normals, head, shard.std, shard.dtype)[0])

    def tally(self, shard: Shard, position: int) -> Tally:
        stored = shard.read(None).reshape(-1)
        total = Tally()
        for start, normals in cuda.standard_normals(self.seed, position, shard.elements, self.resident):
            part = stored[start : start + normals.size]
            total += tally(part, scaled(normals, shard), shard.dtype, shard.std, start)
        return total

    def state(self, position: int) -> RandomState:
        return RandomState(CUDA, self.seed, position, struct.pack("<Qq", self.seed, position))
