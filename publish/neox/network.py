"""What the forward pass of a GPT-NeoX model depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """A network's shape and equations, from its training config.

    ``sliding_window`` is GPT-NeoX's own number w: a query attends to itself and the w positions before it.
    ``epsilon_outside_root`` is the RMSNorm of gpt-neox before 4c9f1081 (May 2025): x / (rms + eps).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    context: int
    norm: str  # layernorm, rmsnorm
    norm_epsilon: float
    epsilon_outside_root: bool
    activation: str  # gelu, gelu_tanh, relu, silu, ...
    gated: bool
    parallel_residual: bool
    shared_norm: bool
    tied: bool
    rotary_fraction: float
    rotary_base: float
    sliding_window: int | None
    initializer_range: float

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def rotated(self) -> int:
        """Dimensions of a head that rotary positions turn (gpt-neox ``transformer.py``, ParallelSelfAttention)."""
        return self.head_size if self.rotary_fraction == 1 else int(self.head_size * self.rotary_fraction)
