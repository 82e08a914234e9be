"""What a checkpoint says of its own training: iteration, sizes, learning rate, loss scale, random states."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import CheckpointError
from publish.neox.inert import StoredTensor, digest_of
from publish.neox.randomstate import saved_tensors
from publish.neox.torchfile import RawTensor, TorchFile


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The state in the first ``mp_rank`` file; every field is None (or empty) where the file does not say.

    ``args`` is GPT-NeoX's own record of the model's sizes. ``random_states`` maps a generator to the SHA-256 of
    its state. ``data_parallel`` is DeepSpeed's ``dp_world_size``. ``validation_logits`` (positions, vocabulary of
    rank 0) is what GPT-NeoX computed of the tokens 0, 1, 2, ... when it saved the file (``checkpointing.py``,
    ``do_forward_pass``), where it was told to.
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
    """The training state of an ``mp_rank`` file; the empty state where there is no such file.

    Raises:
        CheckpointError: the file is no DeepSpeed checkpoint.
    """
    if file is None:
        return TrainingState()
    tree = file.tree
    if not isinstance(tree, dict) or "module" not in tree:
        raise CheckpointError(
            "the file is no DeepSpeed checkpoint: it has no 'module'",
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
