"""The order in which GPT-NeoX draws its weights, and its init methods. Tensors outside the tables are not drawn.

Sources: gpt-neox ``megatron/model/{gpt2_model,transformer,word_embeddings,init_functions}.py`` and
``megatron/mpu/layers.py`` at c00ce70c (June 2023) and ea7aefd8 (May 2026). A tensor is drawn when its module is built,
each rank drawing its own shard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """What a standard deviation may depend on: the network's sizes, ``init-method-std``, the shape of the shard."""

    layers: int
    hidden: int
    sigma: float
    shape: tuple[int, ...]


def _normal(scale: Scale) -> float:
    return scale.sigma


def _scaled(scale: Scale) -> float:
    return scale.sigma / math.sqrt(2.0 * scale.layers)


def _single_residual(scale: Scale) -> float:
    return scale.sigma / math.sqrt(scale.layers)


def _small(scale: Scale) -> float:
    return math.sqrt(2 / (5 * scale.hidden))


def _wang(scale: Scale) -> float:
    return 2 / scale.layers / math.sqrt(scale.hidden)


def _xavier(scale: Scale) -> float:
    return math.sqrt(2.0 / sum(scale.shape))


# init method -> the standard deviation of the normal numbers that it draws
NORMAL_STDS: Mapping[str, Callable[[Scale], float]] = {
    "small_init": _small,
    "wang_init": _wang,
    "normal": _normal,
    "scaled_normal": _scaled,
    "single_residual_scaled_normal": _single_residual,
    "xavier_normal": _xavier,
}
NOT_RECOMPUTED: Mapping[str, str] = {
    "orthogonal": "keeps only the QR factor of what it draws",
    "scaled_orthogonal": "keeps only the QR factor of what it draws",
    "xavier_uniform": "draws uniform numbers",
}
DEFAULTS = ("normal", "scaled_normal", 0.02)  # init-method, output-layer-init-method, init-method-std


@dataclass(frozen=True, slots=True)
class InitMethods:
    """A run's two init methods by GPT-NeoX's names; ``output`` is for layers that write into the residual stream."""

    init: str
    output: str
    sigma: float

    @property
    def obstacle(self) -> str | None:
        """Why weights of these methods cannot be recomputed; None if they can."""
        for name in (self.init, self.output):
            if name in NOT_RECOMPUTED:
                return f"the init method {name} {NOT_RECOMPUTED[name]}, which cannot be recomputed"
            if name not in NORMAL_STDS:
                return f"unknown init method {name!r}"
        return None


INIT, OUTPUT = "init", "output"

BEFORE: Mapping[str, str] = {"embedding.weight": INIT}
LAYER: Mapping[str, str] = {
    "attention.query_key_value.weight": INIT,
    "attention.dense.weight": OUTPUT,
    # 2023; gated MLPs of Llama: w1 is the gate, w3 up, w2 down
    "mlp.dense_h_to_4h.weight": INIT,
    "mlp.dense_4h_to_h.weight": OUTPUT,
    "mlp.w1.weight": INIT,
    "mlp.w3.weight": INIT,
    "mlp.w2.weight": OUTPUT,
    # 2026; a gated linear1 is one draw of both halves
    "mlp.linear1.weight": INIT,
    "mlp.linear2.weight": OUTPUT,
}
AFTER: Mapping[str, str] = {"unembedding.weight": INIT}  # absent when tied

_NAME = re.compile(r"layers\.(\d+)\.(.+)")
_ORDER: Mapping[str, int] = {local: number for number, local in enumerate(LAYER)}


def init_role(name: str) -> str | None:
    """Which of the run's two methods draws the tensor of this canonical name; None if it is not drawn."""
    found = _NAME.fullmatch(name)
    return LAYER.get(found[2]) if found else {**BEFORE, **AFTER}.get(name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The drawn tensors among ``names``, in the order in which they are drawn."""
    return tuple(sorted((name for name in names if init_role(name)), key=_sort_key))


def _sort_key(name: str) -> tuple[int, int, int]:
    found = _NAME.fullmatch(name)
    if found:
        return 1, int(found[1]), _ORDER[found[2]]
    return (0, 0, 0) if name in BEFORE else (2, 0, 0)


def may_begin_a_stage(name: str) -> bool:
    """Whether a pipeline stage can begin with this tensor: the first one of a layer, or the final linear."""
    return name in AFTER or name.endswith(".attention.query_key_value.weight")
