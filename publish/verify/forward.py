"""GPT-NeoX's forward pass on GPT-NeoX's tensors, tensor-parallel ranks simulated; it knows no Hugging Face name.

Memory is that of a block of rows and the activations, whatever the model's size: no layer is kept.
Sources: gpt-neox ``megatron/model/{transformer,gpt2_model,word_embeddings}.py`` and ``megatron/mpu/layers.py``, at
c00ce70c (June 2023) and ea7aefd8 (May 2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.network import Network
from publish.verify import equations
from publish.verify.shards import Arithmetic, Shards

if TYPE_CHECKING:
    import torch

EXACT = Arithmetic()
FREQUENCIES = "attention.rotary_emb.inv_freq"
_MLP = (("mlp.linear1", "mlp.linear2"), ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), ("mlp.w1", "mlp.w2"))


def neox_logits(
    checkpoint: RawCheckpoint, network: Network, tokens: NDArray[np.int64], arithmetic: Arithmetic = EXACT
) -> torch.Tensor:
    """Logits of ``tokens`` (batch, seq): (batch, seq, vocabulary of all ranks), in the arithmetic's dtype.

    Raises:
        GateError: the network needs a tensor that the checkpoint has not, or has another shape.
        ValueError: a token outside the vocabulary.
    """
    import torch

    return torch.cat(list(logit_blocks(checkpoint, network, tokens, arithmetic)), dim=-1)


def logit_blocks(
    checkpoint: RawCheckpoint, network: Network, tokens: NDArray[np.int64], arithmetic: Arithmetic = EXACT
) -> Iterator[torch.Tensor]:
    """The logits of :func:`neox_logits` in blocks of the vocabulary, in order: (batch, seq, block)."""
    import torch

    shards = Shards(checkpoint, arithmetic)
    try:
        with torch.no_grad():
            x = _embed(shards, tokens)
            hidden = equations.hidden_positions(tokens.shape[1], network.sliding_window)
            for layer in range(network.layers):
                x = _Layer(shards, network, f"layers.{layer}.").forward(x, hidden)
        head = "embedding.weight" if network.tied else "unembedding.weight"
        for rank in range(shards.ranks):
            yield from shards.products(_norm(shards, network, rank, "final_norm", x), rank, head)
    except RuntimeError as error:  # torch's word for shapes that do not fit
        raise GateError(
            f"the tensors do not fit the network: {error}", checkpoint.where, "check the config's sizes"
        ) from error


def _embed(shards: Shards, tokens: NDArray[np.int64]) -> torch.Tensor:
    """The embedding is split by vocabulary: a rank looks up its own tokens, others are zero there (all-reduce)."""
    import torch

    rows, width = shards.find(0, "embedding.weight").shape
    unique, place = np.unique(tokens, return_inverse=True)
    if unique[0] < 0 or unique[-1] >= rows * shards.ranks:
        raise ValueError(f"tokens reach {unique[-1]} in a vocabulary of {rows * shards.ranks}")
    found = [shards.rows(int(token) // rows, "embedding.weight", int(token) % rows, 1) for token in unique]
    return torch.cat(found)[torch.from_numpy(place.reshape(-1))].reshape(*tokens.shape, width)


def _norm(shards: Shards, network: Network, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
    if network.norm == "rmsnorm":
        scale = shards.rows(rank, f"{name}.scale")
        return equations.rms_norm(x, scale, network.norm_epsilon, network.epsilon_outside_root)
    weight, bias = shards.rows(rank, f"{name}.weight"), shards.optional(rank, f"{name}.bias")
    return equations.layer_norm(x, weight, bias, network.norm_epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One transformer layer on all ranks; ``x`` is (batch, seq, hidden), the same on every rank."""

    shards: Shards
    network: Network
    prefix: str

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        ranks = range(self.shards.ranks)
        turn = self._rotation(x)
        first = [self._norm(rank, "input_layernorm", x) for rank in ranks]
        attention = [self._attention(rank, first[rank], turn, hidden) for rank in ranks]
        if self.network.parallel_residual:
            shared = self.network.shared_norm
            second = first if shared else [self._norm(rank, "post_attention_layernorm", x) for rank in ranks]
            return x + sum_of(
                [
                    self._biased(rank, "attention.dense", attention[rank])
                    + self._biased(rank, self._mlp_names()[1], self._mlp(rank, second[rank]))
                    for rank in ranks
                ]
            )
        x = x + self._whole_bias("attention.dense", sum_of(attention))
        second = [self._norm(rank, "post_attention_layernorm", x) for rank in ranks]
        return x + self._whole_bias(self._mlp_names()[1], sum_of([self._mlp(rank, second[rank]) for rank in ranks]))

    def _norm(self, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
        return _norm(self.shards, self.network, rank, self.prefix + name, x)

    def _rotation(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stored = self.prefix + FREQUENCIES
        if self.shards.arithmetic.stored_frequencies and self.shards.has(stored):
            inverse = self.shards.rows(0, stored)
        else:
            inverse = equations.frequencies(self.network)
        cosines, sines = equations.rotation(inverse, x.shape[1])
        return cosines.to(x.dtype), sines.to(x.dtype)

    def _column(self, rank: int, name: str, x: torch.Tensor) -> torch.Tensor:
        """A column-parallel layer: the rank's rows of the weight, and its part of the bias."""
        product = self.shards.multiply(x, rank, f"{self.prefix}{name}.weight")
        bias = self.shards.optional(rank, f"{self.prefix}{name}.bias")
        return product if bias is None else product + bias

    def _biased(self, rank: int, name: str, partial: torch.Tensor) -> torch.Tensor:
        """gpt-j-residual: every rank adds its own bias before the all-reduce."""
        bias = self.shards.summed_bias(rank, f"{self.prefix}{name}.bias")
        return partial if bias is None else partial + bias

    def _whole_bias(self, name: str, reduced: torch.Tensor) -> torch.Tensor:
        """Serial residual: each rank has the full bias and adds it after the all-reduce."""
        bias = self.shards.optional(0, f"{self.prefix}{name}.bias")
        return reduced if bias is None else reduced + bias

    def _attention(
        self, rank: int, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], hidden: torch.Tensor
    ) -> torch.Tensor:
        """The rank's heads, before the all-reduce: (batch, seq, hidden)."""
        q, k, v = self._split(self._column(rank, "attention.query_key_value", x))
        context = equations.attend(equations.rotate(q, *turn), equations.rotate(k, *turn), v, hidden)
        return self.shards.multiply(context, rank, f"{self.prefix}attention.dense.weight")

    def _split(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys, values of a rank's heads, each (batch, seq, heads, head_size).

        One key-value head per head: every head is [q, k, v]. Grouped: all queries, then all keys, then all values.
        """
        import torch

        size, ranks = self.network.head_size, self.shards.ranks
        heads, groups = self.network.heads // ranks, self.network.kv_heads // ranks
        places = fused.shape[:2]
        if self.network.kv_heads == self.network.heads:
            q, k, v = torch.split(fused.view(*places, heads, 3 * size), size, dim=-1)
            return q, k, v
        q, k, v = torch.split(fused.view(*places, heads + 2 * groups, size), [heads, groups, groups], dim=-2)
        return q, k.repeat_interleave(heads // groups, dim=-2), v.repeat_interleave(heads // groups, dim=-2)

    def _mlp_names(self) -> tuple[str, str]:
        return next((names for names in _MLP if self.shards.has(f"{self.prefix}{names[0]}.weight")), _MLP[0])

    def _mlp(self, rank: int, x: torch.Tensor) -> torch.Tensor:
        """The rank's part of the MLP, before the all-reduce and without the last bias."""
        up, down = self._mlp_names()
        wide = self._column(rank, up, x)
        if up == "mlp.w1":
            wide = equations.activate(wide, self.network.activation) * self._column(rank, "mlp.w3", x)
        elif self.network.gated:  # each rank's rows are [up; gate]
            linear, gate = wide.chunk(2, dim=-1)
            wide = equations.activate(gate, self.network.activation) * linear
        else:
            wide = equations.activate(wide, self.network.activation)
        return self.shards.multiply(wide, rank, f"{self.prefix}{down}.weight")


def sum_of(parts: list[torch.Tensor]) -> torch.Tensor:
    """The all-reduce, in rank order."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
