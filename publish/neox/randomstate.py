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
TRACKER = "tracker:model-parallel-rng"  # DeepSpeed's name of the generator that initial weights are drawn from

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


def saved_tensors(tree: object) -> dict[str, StoredTensor]:
    """The states in an ``mp_rank`` file: ``torch`` and ``cuda`` of the default generators, and ``tracker:NAME``."""
    if not isinstance(tree, Mapping):
        return {}
    trackers = tree.get("rng_tracker_states")
    named = {f"tracker:{name}": value for name, value in trackers.items()} if isinstance(trackers, Mapping) else {}
    found = {"torch": tree.get("torch_rng_state"), "cuda": tree.get("cuda_rng_state"), **named}
    return {name: value for name, value in found.items() if isinstance(value, StoredTensor)}


def stored_states(files: CheckpointFiles) -> tuple[Mapping[str, RandomState], ...]:
    """The states in every ``mp_rank`` file, those of no known form left out: stage by stage, ranks inside.

    No weight is read.

    Raises:
        CheckpointError: no checkpoint, or a broken file.
    """
    found = []
    for path in find_layout(files.sizes, files.where).ranks:
        file = TorchFile.open(path, files.open(path))
        decoded = {name: decode(file.bytes_of(tensor)) for name, tensor in saved_tensors(file.tree).items()}
        found.append({name: state for name, state in decoded.items() if state is not None})
    return tuple(found)
