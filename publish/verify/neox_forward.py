"""GPT-NeoX's forward pass on the raw checkpoint, with simulated tensor-parallel ranks and without Hugging Face code.

Memory is that of a block of rows and the activations, whatever the model's size: no layer is kept.
Sources: gpt-neox ``megatron/model/{transformer,gpt2_model,word_embeddings}.py`` and ``megatron/mpu/layers.py``, at
c00ce70c (June 2023) and ea7aefd8 (May 2026).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from publish.errors import GateError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import Network

if TYPE_CHECKING:
    import torch

FREQUENCIES = "attention.rotary_emb.inv_freq"
BLOCK = 1 << 18  # elements of a matrix that are upcast at a time
_MLP = (("mlp.linear1", "mlp.linear2"), ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), ("mlp.w1", "mlp.w2"))


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon), scaled and shifted; the last dimension is normalised."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    scaled = centred / (variance + epsilon).sqrt() * weight
    return scaled if bias is None else scaled + bias


def rms_norm(x: torch.Tensor, scale: torch.Tensor, epsilon: float, outside: bool) -> torch.Tensor:
    """x / sqrt(mean(x^2) + epsilon), or x / (sqrt(mean(x^2)) + epsilon) where the epsilon is ``outside``; scaled."""
    square = (x * x).mean(-1, keepdim=True)
    root = square.sqrt() + epsilon if outside else (square + epsilon).sqrt()
    return x / root * scale


def activate(x: torch.Tensor, name: str) -> torch.Tensor:
    """The activation ``name`` of `Network`.

    Raises:
        GateError: GPT-NeoX has no such activation.
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
    if name == "linear":
        return x
    plain = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": torch.nn.functional.softsign}
    if name not in plain:
        raise GateError(f"unknown activation {name!r}", "the training config", "use an activation of GPT-NeoX")
    return plain[name](x)


def rotary_frequencies(network: Network) -> torch.Tensor:
    """Rotary frequencies, float32, shape (rotated / 2,)."""
    import torch

    size = network.rotated
    return 1.0 / (network.rotary_base ** (torch.arange(0, size, 2).float() / size))


def rotary_cos_sin(inverse: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, float32, each (1, length, 1, rotated): the second half repeats the first."""
    import torch

    angles = torch.outer(torch.arange(length).float(), inverse.float())
    doubled = torch.cat((angles, angles), dim=-1)[None, :, None, :]
    return doubled.cos(), doubled.sin()


def apply_rotary(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate the first dimensions of every head; ``x`` is (batch, seq, heads, head_size)."""
    import torch

    size = cosines.shape[-1]
    rotated, rest = x[..., :size], x[..., size:]
    first, second = rotated[..., : size // 2], rotated[..., size // 2 :]
    crossed = torch.cat((-second, first), dim=-1)
    return torch.cat((rotated * cosines + crossed * sines, rest), dim=-1)


def attention_mask(length: int, window: int | None) -> torch.Tensor:
    """True where a query (row) does not attend to a key: later ones, and those more than ``window`` before it."""
    import torch

    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    return (distance < 0) if window is None else (distance < 0) | (distance > window)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Masked attention; all (batch, seq, heads, head_size), result (batch, seq, heads * head_size)."""
    import torch

    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    probabilities = scores.masked_fill(masked, -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", probabilities, v).flatten(2)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the pass computes; the default is GPT-NeoX's network in float32.

    ``rounded_to``: weights are first rounded to this dtype, as a file holds them. Biases that are summed over ranks are
    then rounded once, and tensors of another dtype are cast. ``stored_frequencies``: rotate by the checkpoint's own
    ``inv_freq`` where it has one (2023 files hold it in float16) instead of frequencies computed in float32. ``dtype``:
    that of the arithmetic.
    """

    rounded_to: str | None = None
    stored_frequencies: bool = False
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of every rank. Each call reads and upcasts them; nothing is kept."""

    checkpoint: RawCheckpoint
    arithmetic: Arithmetic

    @property
    def ranks(self) -> int:
        return self.checkpoint.tensor_parallel

    def has(self, name: str) -> bool:
        return name in self.checkpoint.ranks[0]

    def find(self, rank: int, name: str) -> RawTensor:
        """The tensor ``name`` of ``rank``.

        Raises:
            GateError: the checkpoint does not have it.
        """
        found = self.checkpoint.ranks[rank].get(name)
        if found is None:
            raise GateError(
                f"the network needs {name} of rank {rank}, which the checkpoint does not have",
                self.checkpoint.where,
                "check the config against the checkpoint",
            )
        return found

    def rows(self, rank: int, name: str, start: int = 0, count: int | None = None) -> torch.Tensor:
        """Rows of a tensor, in the dtype of the arithmetic, first rounded to ``rounded_to``."""
        import torch

        tensor = self.find(rank, name)
        numbers = as_tensor(self.checkpoint.read(tensor, start, count), tensor.dtype)
        if self.arithmetic.rounded_to is not None and self.arithmetic.rounded_to != tensor.dtype:
            numbers = numbers.to(getattr(torch, self.arithmetic.rounded_to))
        return numbers.to(getattr(torch, self.arithmetic.dtype))

    def optional(self, rank: int, name: str) -> torch.Tensor | None:
        """A whole small tensor, None where the checkpoint does not have it."""
        return self.rows(rank, name) if self.has(name) else None

    def multiply(self, x: torch.Tensor, rank: int, name: str) -> torch.Tensor:
        """x W^T: ``x`` (..., in), W (out, in) of ``rank``, result (..., out)."""
        import torch

        product, at = torch.empty(*x.shape[:-1], self.find(rank, name).shape[0], dtype=x.dtype), 0
        for block in self.products(x, rank, name):
            product[..., at : at + block.shape[-1]] = block
            at += block.shape[-1]
        return product

    def products(self, x: torch.Tensor, rank: int, name: str) -> Iterator[torch.Tensor]:
        """:meth:`multiply` in blocks of W's rows, at most `BLOCK` elements of W at once."""
        out, width = self.find(rank, name).shape
        step = max(1, BLOCK // max(1, width))
        for start in range(0, out, step):
            yield x @ self.rows(rank, name, start, min(step, out - start)).T

    def summed_bias(self, rank: int, name: str) -> torch.Tensor | None:
        """The bias that ``rank`` adds before the all-reduce; with ``rounded_to`` rank 0 adds the rounded sum of all.

        With gpt-j-residual every rank adds its own bias, so the network's bias is their sum, which a file holds
        rounded (gpt-neox ``megatron/model/transformer.py``, ParallelTransformerLayer).
        """
        import torch

        if not self.has(name):
            return None
        rounded_to = self.arithmetic.rounded_to
        if rounded_to is None or self.ranks == 1:
            return self.rows(rank, name)
        if rank:
            return None
        exact = Weights(self.checkpoint, Arithmetic())
        total = exact.rows(0, name)
        for other in range(1, self.ranks):
            total = total + exact.rows(other, name)
        return total.to(getattr(torch, rounded_to)).to(getattr(torch, self.arithmetic.dtype))


def as_tensor(array: np.ndarray[Any, Any], dtype: str) -> torch.Tensor:
    """``array`` as a torch tensor of the same bits; bfloat16 comes as uint16."""
    import torch

    if not array.flags.writeable:
        array = array.copy()
    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def logit_blocks(
    checkpoint: RawCheckpoint, network: Network, tokens: NDArray[np.int64], arithmetic: Arithmetic = Arithmetic()
) -> Iterator[torch.Tensor]:
    """Logits of ``tokens`` (batch, seq), a block of the vocabulary at a time: (batch, seq, block), in order.

    Raises:
        GateError: a tensor is missing or has another shape than the network needs.
        ValueError: a token is outside the vocabulary.
    """
    import torch

    weights = Weights(checkpoint, arithmetic)
    try:
        with torch.no_grad():
            x = _embed(weights, tokens)
            masked = attention_mask(tokens.shape[1], network.sliding_window)
            for layer in range(network.layers):
                x = _Layer(weights, network, f"layers.{layer}.").forward(x, masked)
        head = "embedding.weight" if network.tied else "unembedding.weight"
        for rank in range(weights.ranks):
            yield from weights.products(_norm(weights, network, rank, "final_norm", x), rank, head)
    except RuntimeError as error:  # torch raises it for shapes that do not fit
        raise GateError(
            f"the tensors do not fit the network: {error}", checkpoint.where, "check the config's sizes"
        ) from error


def _embed(weights: Weights, tokens: NDArray[np.int64]) -> torch.Tensor:
    """The embedding is split by vocabulary: each token is looked up on the rank that has its row."""
    import torch

    rows, width = weights.find(0, "embedding.weight").shape
    unique, index = np.unique(tokens, return_inverse=True)
    if unique[0] < 0 or unique[-1] >= rows * weights.ranks:
        raise ValueError(f"a token is {unique[-1]}, but the vocabulary has {rows * weights.ranks}")
    found = [weights.rows(int(token) // rows, "embedding.weight", int(token) % rows, 1) for token in unique]
    return torch.cat(found)[torch.from_numpy(index.reshape(-1))].reshape(*tokens.shape, width)


def _norm(weights: Weights, network: Network, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
    if network.norm == "rmsnorm":
        scale = weights.rows(rank, f"{name}.scale")
        return rms_norm(x, scale, network.norm_epsilon, network.epsilon_outside_root)
    weight, bias = weights.rows(rank, f"{name}.weight"), weights.optional(rank, f"{name}.bias")
    return layer_norm(x, weight, bias, network.norm_epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One transformer layer on all ranks; ``x`` is (batch, seq, hidden), the same on every rank."""

    weights: Weights
    network: Network
    prefix: str

    def forward(self, x: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        ranks = range(self.weights.ranks)
        rotary = self._rotary(x)
        first = [self._norm(rank, "input_layernorm", x) for rank in ranks]
        attention = [self._attention(rank, first[rank], rotary, masked) for rank in ranks]
        if self.network.parallel_residual:
            shared = self.network.shared_norm
            second = first if shared else [self._norm(rank, "post_attention_layernorm", x) for rank in ranks]
            return x + all_reduce(
                [
                    self._biased(rank, "attention.dense", attention[rank])
                    + self._biased(rank, self._mlp_names()[1], self._mlp(rank, second[rank]))
                    for rank in ranks
                ]
            )
        x = x + self._whole_bias("attention.dense", all_reduce(attention))
        second = [self._norm(rank, "post_attention_layernorm", x) for rank in ranks]
        return x + self._whole_bias(self._mlp_names()[1], all_reduce([self._mlp(rank, second[rank]) for rank in ranks]))

    def _norm(self, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
        return _norm(self.weights, self.network, rank, self.prefix + name, x)

    def _rotary(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stored = self.prefix + FREQUENCIES
        if self.weights.arithmetic.stored_frequencies and self.weights.has(stored):
            inverse = self.weights.rows(0, stored)
        else:
            inverse = rotary_frequencies(self.network)
        cosines, sines = rotary_cos_sin(inverse, x.shape[1])
        return cosines.to(x.dtype), sines.to(x.dtype)

    def _column(self, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
        """A column-parallel layer: the rank's rows of the weight and the bias."""
        product = self.weights.multiply(x, rank, f"{self.prefix}{name}.weight")
        bias = self.weights.optional(rank, f"{self.prefix}{name}.bias")
        return product if bias is None else product + bias

    def _biased(self, rank: int, name: str, partial: torch.Tensor) -> torch.Tensor:
        """gpt-j-residual: every rank adds its own bias before the all-reduce."""
        bias = self.weights.summed_bias(rank, f"{self.prefix}{name}.bias")
        return partial if bias is None else partial + bias

    def _whole_bias(self, name: str, reduced: torch.Tensor) -> torch.Tensor:
        """Serial residual: each rank has the full bias and adds it after the all-reduce."""
        bias = self.weights.optional(0, f"{self.prefix}{name}.bias")
        return reduced if bias is None else reduced + bias

    def _attention(
        self, rank: int, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], masked: torch.Tensor
    ) -> torch.Tensor:
        """The rank's heads, before the all-reduce: (batch, seq, hidden)."""
        q, k, v = self._split(self._column(rank, "attention.query_key_value", x))
        context = attend(apply_rotary(q, *rotary), apply_rotary(k, *rotary), v, masked)
        return self.weights.multiply(context, rank, f"{self.prefix}attention.dense.weight")

    def _split(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys, values of a rank's heads, each (batch, seq, heads, head_size).

        One key-value head per head: every head is [q, k, v]. Grouped: all queries, then all keys, then all values.
        """
        import torch

        size, ranks = self.network.head_size, self.weights.ranks
        heads, groups = self.network.heads // ranks, self.network.kv_heads // ranks
        places = fused.shape[:2]
        if self.network.kv_heads == self.network.heads:
            q, k, v = torch.split(fused.view(*places, heads, 3 * size), size, dim=-1)
            return q, k, v
        q, k, v = torch.split(fused.view(*places, heads + 2 * groups, size), [heads, groups, groups], dim=-2)
        return q, k.repeat_interleave(heads // groups, dim=-2), v.repeat_interleave(heads // groups, dim=-2)

    def _mlp_names(self) -> tuple[str, str]:
        return next((names for names in _MLP if self.weights.has(f"{self.prefix}{names[0]}.weight")), _MLP[0])

    def _mlp(self, rank: int, x: torch.Tensor) -> torch.Tensor:
        """The rank's part of the MLP, before the all-reduce and without the last bias."""
        up, down = self._mlp_names()
        wide = self._column(rank, up, x)
        if up == "mlp.w1":
            wide = activate(wide, self.network.activation) * self._column(rank, "mlp.w3", x)
        elif self.network.gated:  # each rank's rows are [up; gate]
            linear, gate = wide.chunk(2, dim=-1)
            wide = activate(gate, self.network.activation) * linear
        else:
            wide = activate(wide, self.network.activation)
        return self.weights.multiply(wide, rank, f"{self.prefix}{down}.weight")


def all_reduce(partials: list[torch.Tensor]) -> torch.Tensor:
    """The sum, in rank order."""
    total = partials[0]
    for partial in partials[1:]:
        total = total + partial
    return total
