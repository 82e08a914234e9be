"""What a checkpoint says of its own training: iteration, sizes, learning rate, loss scale, random states."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import CheckpointError
from publish.neox.randomstate import saved_tensors
from publish.neox.torchfile import TorchFile


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The state in the first ``mp_rank`` file; every field is None (or empty) where the file does not say.

    ``args`` is GPT-NeoX's own record of the model's sizes. ``random_states`` maps a generator to the SHA-256 of
    its state. ``data_parallel`` is DeepSpeed's ``dp_world_size``.
    """

    iteration: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    loss_scale: float | None = None
    skipped_steps: int | None = None
    data_parallel: int | None = None
    deepspeed_version: str | None = None
    random_states: Mapping[str, str] = field(default_factory=dict)


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
        name: value for name, value in _dict(tree.get("args")).items() if isinstance(value, str | int | float | None)
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
    )


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _learning_rate(tree: dict[Any, Any], scheduler: dict[Any, Any]) -> float | None:
    groups = _dict(_dict(tree.get("optimizer")).get("optimizer_state_dict") or tree.get("optimizer")).get(
        "param_groups"
    )
    if isinstance(groups, list) and groups and isinstance(_dict(groups[0]).get("lr"), float | int):
        return float(groups[0]["lr"])
    rate = scheduler.get("lr")
    return float(rate) if isinstance(rate, float | int) and not isinstance(rate, bool) else None


def _loss_scale(tree: dict[Any, Any]) -> float | None:
    optimizer = _dict(tree.get("optimizer"))
    for name in ("cur_scale", "loss_scale"):
        if isinstance(optimizer.get(name), float | int):
            return float(optimizer[name])
    return None


def _random_states(file: TorchFile, tree: dict[Any, Any]) -> dict[str, str]:
    return {name: hashlib.sha256(file.bytes_of(value)).hexdigest() for name, value in saved_tensors(tree).items()}
