"""A generator, and where in its stream the first tensor lies."""

from __future__ import annotations

from dataclasses import dataclass

from publish.explain.streams import CpuStream, CudaStream, Stream
from publish.neox.randomstate import CPU


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
