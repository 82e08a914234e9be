"""In which order GPT-NeoX draws its weights, with which method; tensors that are not in the tables draw nothing.

Source: gpt-neox ``megatron/model/{gpt2_model,transformer,word_embeddings}.py`` and ``megatron/mpu/layers.py``
(c00ce70c, June 2023, and ea7aefd8, May 2026): a tensor is drawn when its module is built, on its rank's own shard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# GPT-NeoX's initialisation methods: the standard deviation that each draws with, or why it cannot be recomputed.


@dataclass(frozen=True, slots=True)
class Scale:
    """What a standard deviation may depend on: the network's sizes, ``init-method-std``, the shard's own shape."""

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


NORMAL: Mapping[str, Callable[[Scale], float]] = {
    "small_init": _small,
    "wang_init": _wang,
    "normal": _normal,
    "scaled_normal": _scaled,
    "single_residual_scaled_normal": _single_residual,
    "xavier_normal": _xavier,
}
OTHERS: Mapping[str, str] = {
    "orthogonal": "keeps only the QR factor of what it draws",
    "scaled_orthogonal": "keeps only the QR factor of what it draws",
    "xavier_uniform": "draws uniform numbers, not normal ones",
}
DEFAULTS = ("normal", "scaled_normal", 0.02)  # init-method, output-layer-init-method, init-method-std


@dataclass(frozen=True, slots=True)
class Methods:
    """A run's two methods by GPT-NeoX's names: ``output`` is that of the layers that write into the residual stream."""

    init: str
    output: str
    sigma: float

    @property
    def obstacle(self) -> str | None:
        """Why weights of these methods cannot be recomputed; None where they can."""
        for name in (self.init, self.output):
            if name in OTHERS:
                return f"init method {name} {OTHERS[name]}, which is not recomputed here"
            if name not in NORMAL:
                return f"init method {name!r} is none of GPT-NeoX's"
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
_PLACES: Mapping[str, int] = {local: place for place, local in enumerate(LAYER)}


def role(name: str) -> str | None:
    """Which of the run's two methods draws the tensor of this canonical name; None where nothing draws it."""
    found = _NAME.fullmatch(name)
    return LAYER.get(found[2]) if found else {**BEFORE, **AFTER}.get(name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The drawn tensors among ``names``, as they are drawn."""
    return tuple(sorted((name for name in names if role(name)), key=_place))


def _place(name: str) -> tuple[int, int, int]:
    found = _NAME.fullmatch(name)
    if found:
        return 1, int(found[1]), _PLACES[found[2]]
    return (0, 0, 0) if name in BEFORE else (2, 0, 0)


def may_begin_a_stage(name: str) -> bool:
    """Whether a pipeline stage can begin with this tensor: a layer's first, or the final linear."""
    return name in AFTER or name.endswith(".attention.query_key_value.weight")
