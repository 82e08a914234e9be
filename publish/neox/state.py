"""The training state in a raw checkpoint: iteration, sizes, learning rate, loss scale, random states."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import CheckpointError
from publish.formats.torch_archive import RawTensor, TorchFile
from publish.formats.unpickler import StoredTensor, digest_of

CPU, CUDA = "cpu-mt19937", "cuda-philox"
TRACKER = "tracker:model-parallel-rng"  # DeepSpeed's name of the generator that initial weights are drawn from

_CPU = struct.Struct("<QiiQ624Q")  # seed, words left in the block, seeded, next word, the words
_CPU_SIZE = 5056
_CUDA = struct.Struct("<Qq")  # seed, offset
_FILLER = 800


@dataclass(frozen=True, slots=True)
class RandomState:
    """The state of a generator as torch saves it. ``offset`` is CUDA's, a multiple of 4; a CPU's is in ``raw`` only."""

    generator: str
    seed: int
    offset: int | None
    raw: bytes

    def same_place(self, other: RandomState) -> bool:
        """Whether both generators draw the same numbers next; cached values and filler are ignored."""
        if self.generator != other.generator:
            return False
        if self.generator == CUDA:
            return (self.seed, self.offset) == (other.seed, other.offset)
        return self.raw[: _CPU.size] == other.raw[: _CPU.size]


def decode(raw: bytes) -> RandomState | None:
    """The state in ``raw``; None if it has no form that torch writes. The form tells which generator it is of."""
    if len(raw) == _CPU_SIZE:
        seed, left, seeded, following, *words = _CPU.unpack_from(raw)
        sound = seeded == 1 and 0 < left <= 624 and following <= 624 and max(words) < 2**32
        return RandomState(CPU, seed, None, raw) if sound else None
    if len(raw) in (_CUDA.size, _FILLER + _CUDA.size):
        seed, offset = _CUDA.unpack(raw[-_CUDA.size :])
        return RandomState(CUDA, seed, offset, raw) if offset >= 0 and offset % 4 == 0 else None
    return None


def saved_tensors(tree: object) -> dict[str, StoredTensor]:
    """The random states in an ``mp_rank`` file: ``torch`` and ``cuda`` (default generators), and ``tracker:NAME``."""
    if not isinstance(tree, Mapping):
        return {}
    trackers = tree.get("rng_tracker_states")
    named = {f"tracker:{name}": value for name, value in trackers.items()} if isinstance(trackers, Mapping) else {}
    found = {"torch": tree.get("torch_rng_state"), "cuda": tree.get("cuda_rng_state"), **named}
    return {name: value for name, value in found.items() if isinstance(value, StoredTensor)}


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The state in the first ``mp_rank`` file. Fields that the file does not state are None or empty.

    ``args`` is GPT-NeoX's own record of the model's sizes. ``random_states`` maps a generator to the SHA-256 of
    its state. ``data_parallel`` is DeepSpeed's ``dp_world_size``. ``validation_logits`` (positions, vocabulary of
    rank 0) is what GPT-NeoX computed for the tokens 0, 1, 2, ... when it saved the file (``checkpointing.py``,
    ``do_forward_pass``), if it was configured to.
    """

    iteration: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    loss_scale: float | None = None
    skipped_steps: int | None = None
    data_parallel: int | None = None
    deepspeed_version: str | None = None
    random_states: Mapping[str, str] = field(default_factory=dict)
    validation_logits: RawTensor | None = None


def read_state(file: TorchFile | None, where: str) -> TrainingState:
    """The training state in an ``mp_rank`` file; an empty state if there is no such file.

    Raises:
        CheckpointError: the file is not a DeepSpeed checkpoint.
    """
    if file is None:
        return TrainingState()
    tree = file.tree
    if not isinstance(tree, dict) or "module" not in tree:
        raise CheckpointError(
            "the file is not a DeepSpeed checkpoint: it has no 'module'",
            f"{where}/{file.name}",
            "fetch it again",
        )
    scheduler = _dict(tree.get("lr_scheduler"))
    args = {
        name: value
        for name, value in _dict(tree.get("args")).items()
        if isinstance(name, str) and isinstance(value, str | int | float | None)
    }
    return TrainingState(
        iteration=_integer(tree.get("iteration")),
        args=args,
        learning_rate=_learning_rate(tree, scheduler),
        loss_scale=_loss_scale(tree),
        skipped_steps=_integer(tree.get("skipped_steps")),
        data_parallel=_integer(tree.get("dp_world_size")),
        deepspeed_version=_text(tree.get("ds_version")),
        random_states=_random_states(file, tree),
        validation_logits=_validation_logits(file, tree),
    )


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _number(value: object) -> float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if (integer := _integer(value)) is None else float(integer)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _learning_rate(tree: dict[Any, Any], scheduler: dict[Any, Any]) -> float | None:
    optimizer = _dict(tree.get("optimizer"))
    groups = _dict(optimizer.get("optimizer_state_dict") or optimizer).get("param_groups")
    first = _dict(groups[0]) if isinstance(groups, list) and groups else {}
    rate = _number(first.get("lr"))
    return _number(scheduler.get("lr")) if rate is None else rate


def _loss_scale(tree: dict[Any, Any]) -> float | None:
    optimizer = _dict(tree.get("optimizer"))
    scales = (_number(optimizer.get(name)) for name in ("cur_scale", "loss_scale"))
    return next((scale for scale in scales if scale is not None), None)


def _validation_logits(file: TorchFile, tree: dict[Any, Any]) -> RawTensor | None:
    stored = tree.get("checkpoint_validation_logits")
    return file.tensor("checkpoint_validation_logits", stored) if isinstance(stored, StoredTensor) else None


def _random_states(file: TorchFile, tree: dict[Any, Any]) -> dict[str, str]:
    stored = saved_tensors(tree).items()
    digests = {name: hashlib.sha256(file.bytes_of(value)).hexdigest() for name, value in stored}
    own = {"python": tree.get("random_rng_state"), "numpy": tree.get("np_rng_state")}
    return digests | {name: digest for name, value in own.items() if (digest := digest_of(value)) is not None}
