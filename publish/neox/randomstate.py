"""The states of random generators as torch saves them, decoded; which generator wrote them follows from their form.

Sources: torch ``aten/src/ATen/CPUGeneratorImpl.cpp`` (5,056 bytes: seed, place in the block, 624 words, cached normals)
and ``aten/src/ATen/cuda/CUDAGeneratorImpl.cpp`` (seed and offset, after 800 bytes of filler in older versions).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from publish.neox.inert import StoredTensor
from publish.neox.layout import find_layout
from publish.neox.torchfile import TorchFile
from publish.source.files import CheckpointFiles

CPU, CUDA = "cpu-mt19937", "cuda-philox"
TRACKER = "model-parallel-rng"  # DeepSpeed's name of the generator that initial weights are drawn from

_CPU = struct.Struct("<QiiQ624Q")  # seed, words left in the block, seeded, next word, the words
_CPU_SIZE = 5056
_CUDA = struct.Struct("<Qq")  # seed, offset
_FILLER = 800


@dataclass(frozen=True, slots=True)
class RandomState:
    """One generator's state. ``offset`` is CUDA's (a multiple of 4); a CPU's place is in ``raw`` alone."""

    generator: str
    seed: int
    offset: int | None
    raw: bytes

    def same_place(self, other: RandomState) -> bool:
        """Whether both generators would draw the same numbers next; cached values and filler apart."""
        if self.generator != other.generator:
            return False
        if self.generator == CUDA:
            return (self.seed, self.offset) == (other.seed, other.offset)
        return self.raw[: _CPU.size] == other.raw[: _CPU.size]


def decode(raw: bytes) -> RandomState | None:
    """The state that ``raw`` holds; None where it is of no form that torch writes."""
    if len(raw) == _CPU_SIZE:
        seed, left, seeded, following, *words = _CPU.unpack_from(raw)
        sound = seeded == 1 and 0 < left <= 624 and following <= 624 and max(words) < 2**32
        return RandomState(CPU, seed, None, raw) if sound else None
    if len(raw) in (_CUDA.size, _FILLER + _CUDA.size):
        seed, offset = _CUDA.unpack(raw[-_CUDA.size :])
        return RandomState(CUDA, seed, offset, raw) if offset >= 0 and offset % 4 == 0 else None
    return None


def stored_states(files: CheckpointFiles, name: str = TRACKER) -> tuple[RandomState | None, ...]:
    """The state of tracker ``name`` in every ``mp_rank`` file: pipeline stage by stage, tensor-parallel ranks inside.

    None for a file without one. No weight is read.

    Raises:
        CheckpointError: no checkpoint, or a broken file.
    """
    found = []
    for path in find_layout(files.sizes, files.where).ranks:
        file = TorchFile.open(path, files.open(path))
        trackers = file.tree.get("rng_tracker_states") if isinstance(file.tree, dict) else None
        stored = trackers.get(name) if isinstance(trackers, Mapping) else None
        found.append(decode(file.bytes_of(stored)) if isinstance(stored, StoredTensor) else None)
    return tuple(found)
