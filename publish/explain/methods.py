"""GPT-NeoX's initialisation methods: the standard deviation that each draws with, or why it cannot be recomputed.

Source: gpt-neox ``megatron/model/init_functions.py`` (c00ce70c, June 2023, and ea7aefd8, May 2026).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


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
