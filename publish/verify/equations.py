"""GPT-NeoX's equations, one function each: norms, activations, rotary positions, masked attention.

Sources: gpt-neox ``megatron/model/{norms,activations,positional_embeddings,transformer}.py`` and
``megatron/utils.py`` (mask), at c00ce70c (June 2023) and ea7aefd8 (May 2026).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from publish.errors import GateError
from publish.neox.network import Network

if TYPE_CHECKING:
    import torch


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon), scaled and shifted; the last dimension is normalised."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    scaled = centred / (variance + epsilon).sqrt() * weight
    return scaled if bias is None else scaled + bias


def rms_norm(x: torch.Tensor, scale: torch.Tensor, epsilon: float, outside: bool) -> torch.Tensor:
    """x / sqrt(mean(x^2) + epsilon), or x / (sqrt(mean(x^2)) + epsilon) where the epsilon stands ``outside``."""
    square = (x * x).mean(-1, keepdim=True)
    root = square.sqrt() + epsilon if outside else (square + epsilon).sqrt()
    return x / root * scale


def activate(x: torch.Tensor, name: str) -> torch.Tensor:
    """The activation ``name`` of `Network`.

    Raises:
        GateError: GPT-NeoX has none of this name.
    """
    import torch

    if name == "gelu_tanh":  # bias_gelu; the constant is GPT-NeoX's, rounded as there
        return 0.5 * x * (1 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))
    if name == "gelu":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    if name in ("silu", "swish"):
        return x * torch.sigmoid(x)
    if name == "mish":
        return x * torch.tanh(torch.nn.functional.softplus(x))
    plain = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": _softsign, "linear": _same}
    if name not in plain:
        raise GateError(f"activation {name!r} is none of GPT-NeoX's", "the config", "it cannot be checked; refuse it")
    return plain[name](x)


def _softsign(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + x.abs())


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def frequencies(network: Network) -> torch.Tensor:
    """Rotary frequencies, float32, shape (rotated / 2,)."""
    import torch

    size = network.rotated
    return 1.0 / (network.rotary_base ** (torch.arange(0, size, 2).float() / size))


def rotation(inverse: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, float32, each (1, length, 1, rotated): the second half repeats the first."""
    import torch

    angles = torch.outer(torch.arange(length).float(), inverse.float())
    doubled = torch.cat((angles, angles), dim=-1)[None, :, None, :]
    return doubled.cos(), doubled.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate the first dimensions of every head; ``x`` is (batch, seq, heads, head_size)."""
    import torch

    size = cosines.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned[..., : size // 2], turned[..., size // 2 :]
    crossed = torch.cat((-second, first), dim=-1)
    return torch.cat((turned * cosines + crossed * sines, rest), dim=-1)


def hidden_positions(length: int, window: int | None) -> torch.Tensor:
    """True where a query (row) must not see a key: later ones, and those more than ``window`` before it."""
    import torch

    behind = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    return (behind < 0) if window is None else (behind < 0) | (behind > window)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Masked attention; all (batch, seq, heads, head_size), result (batch, seq, heads * head_size)."""
    import torch

    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    probabilities = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", probabilities, v).flatten(2)
