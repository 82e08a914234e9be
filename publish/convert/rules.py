"""Which GPT-NeoX tensors become which Hugging Face tensor, and how the shards of several ranks are merged: all as data.

A Hugging Face tensor is assembled from slices of the shards, one shard per tensor-parallel rank; only a sum needs
arithmetic. There is a table of rules for each architecture. GPT-NeoX renamed its MLP tensors in 0d4bdb96 (September
2024): what it wrote before that is *legacy* here.

Sources: gpt-neox ``megatron/model/transformer.py`` at c00ce70c (June 2023) and ea7aefd8 (May 2026), and the
``modeling_*.py`` of transformers. Row-parallel biases: gpt-neox adds them before the all-reduce with gpt-j-residual, so
the network's bias is the sum of the ranks' biases; otherwise each rank holds a full copy, and the copies must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from publish.formats.torch_archive import RawTensor

Shards = tuple[RawTensor, ...]  # one per tensor-parallel rank, rank 0 first
COPY, SUM = "copy", "sum"


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows ``source_rows`` (first, count) of ``tensor`` on ``rank`` go to (``target_row``, ``target_column``).

    The rows of a one-dimensional tensor are its elements.
    """

    rank: int
    tensor: RawTensor
    source_rows: tuple[int, int]
    target_row: int = 0
    target_column: int = 0


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of the whole model, all ranks together."""

    query: int
    key_value: int
    size: int


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """The merged shape, and the slices that fill it exactly once; for a sum each slice fills all of it."""

    shape: tuple[int, ...]
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """A way to merge shards. ``axis`` is the one that GPT-NeoX splits over ranks; None: every rank has the full shape.

    ``identical``: every rank must hold the same bits. ``how``: :data:`COPY` or :data:`SUM`.
    """

    axis: int | None
    apply: Callable[[Shards, Heads], MergedTensor]
    how: str = COPY
    identical: bool = False


def _first(shards: Shards, _heads: Heads) -> MergedTensor:
    first = shards[0]
    return MergedTensor(first.shape, (_whole(0, first),))


def _all(shards: Shards, _heads: Heads) -> MergedTensor:
    return MergedTensor(shards[0].shape, tuple(_whole(rank, shard) for rank, shard in enumerate(shards)))


def _rows(shards: Shards, _heads: Heads) -> MergedTensor:
    return _stack(shards, [(rank, 0, shard.shape[0]) for rank, shard in enumerate(shards)])


def _columns(shards: Shards, _heads: Heads) -> MergedTensor:
    starts = [0, *accumulate(shard.shape[1] for shard in shards)]
    slices = tuple(
        Slice(rank, shard, (0, shard.shape[0]), 0, start)
        for (rank, shard), start in zip(enumerate(shards), starts, strict=False)
    )
    return MergedTensor((shards[0].shape[0], starts[-1]), slices)


def _half(which: int) -> Callable[[Shards, Heads], MergedTensor]:
    def apply(shards: Shards, _heads: Heads) -> MergedTensor:
        halves = [shard.shape[0] // 2 for shard in shards]
        return _stack(shards, [(rank, which * half, half) for rank, half in enumerate(halves)])

    return apply


def _projection(which: int) -> Callable[[Shards, Heads], MergedTensor]:
    """Query (0), key (1) or value (2) rows out of the fused projection."""

    def apply(shards: Shards, heads: Heads) -> MergedTensor:
        blocks = _grouped if heads.key_value < heads.query else _interleaved
        return _stack(shards, list(blocks(which, len(shards), heads)))

    return apply


def _interleaved(which: int, ranks: int, heads: Heads) -> Iterator[tuple[int, int, int]]:
    """One key-value head per head: each head's rows are [q, k, v] (gpt-neox transformer.py, ParallelSelfAttention)."""
    for head in range(heads.query):
        rank, local = divmod(head, heads.query // ranks)
        yield rank, (3 * local + which) * heads.size, heads.size


def _grouped(which: int, ranks: int, heads: Heads) -> Iterator[tuple[int, int, int]]:
    """Fewer key-value heads than heads: each rank's rows are [q; k; v] (gpt-neox transformer.py, gqa_project)."""
    counts = [heads.query // ranks, heads.key_value // ranks, heads.key_value // ranks]
    for rank in range(ranks):
        yield rank, sum(counts[:which]) * heads.size, counts[which] * heads.size


def _stack(shards: Shards, blocks: list[tuple[int, int, int]]) -> MergedTensor:
    """Blocks of rows (rank, first row, count), one below the other."""
    starts = [0, *accumulate(count for _, _, count in blocks)]
    slices = tuple(
        Slice(rank, shards[rank], (first, count), start)
        for (rank, first, count), start in zip(blocks, starts, strict=False)
    )
    return MergedTensor((starts[-1], *shards[0].shape[1:]), slices)


def _whole(rank: int, shard: RawTensor) -> Slice:
    return Slice(rank, shard, (0, shard.shape[0]))


same_on_every_rank = Merge(None, _first, identical=True)
total = Merge(None, _all, how=SUM)
join_rows = Merge(0, _rows)
join_columns = Merge(1, _columns)
up_half = Merge(0, _half(0))
gate_half = Merge(0, _half(1))
queries = Merge(0, _projection(0))
keys = Merge(0, _projection(1))
values = Merge(0, _projection(2))


@dataclass(frozen=True, slots=True)
class Rule:
    """GPT-NeoX's tensor ``neox`` becomes Hugging Face's tensor ``hf`` by ``merge``.

    ``shape`` is that of GPT-NeoX's tensor merged over all ranks, in the names of `architecture.Sizes`.
    """

    neox: str
    hf: str
    merge: Merge
    shape: tuple[str, ...]


_EXTRA_STATE = "TransformerEngine's fp8 scales, not a weight"
DROPPED: Mapping[str, str] = {
    "attention.rotary_emb.inv_freq": "transformers computes it from the rotary base",
    "attention.query_key_value._extra_state": _EXTRA_STATE,
    "attention.dense._extra_state": _EXTRA_STATE,
    "mlp.linear1._extra_state": _EXTRA_STATE,
    "mlp.linear2._extra_state": _EXTRA_STATE,
    "input_layernorm._extra_state": _EXTRA_STATE,
    "post_attention_layernorm._extra_state": _EXTRA_STATE,
}
UNUSED_NORM = "gpt-j-tied: the forward pass uses input_layernorm for both branches"

# --- outside the layers -----------------------------------------------------------------------------------------------
NEOX_OUTSIDE = (
    Rule("embedding.weight", "gpt_neox.embed_in.weight", join_rows, ("vocabulary", "hidden")),
    Rule("final_norm.weight", "gpt_neox.final_layer_norm.weight", same_on_every_rank, ("hidden",)),
    Rule("final_norm.bias", "gpt_neox.final_layer_norm.bias", same_on_every_rank, ("hidden",)),
)
NEOX_UNTIED = (Rule("unembedding.weight", "embed_out.weight", join_rows, ("vocabulary", "hidden")),)
LLAMA_OUTSIDE = (
    Rule("embedding.weight", "model.embed_tokens.weight", join_rows, ("vocabulary", "hidden")),
    Rule("final_norm.scale", "model.norm.weight", same_on_every_rank, ("hidden",)),
)
LLAMA_UNTIED = (Rule("unembedding.weight", "lm_head.weight", join_rows, ("vocabulary", "hidden")),)

# --- in every layer: GPT-NeoX ---------------------------------------------------------------------------------------
NEOX_LAYER = (
    Rule("input_layernorm.weight", "input_layernorm.weight", same_on_every_rank, ("hidden",)),
    Rule("input_layernorm.bias", "input_layernorm.bias", same_on_every_rank, ("hidden",)),
    Rule(
        "attention.query_key_value.weight",
        "attention.query_key_value.weight",
        join_rows,
        ("projection", "hidden"),
    ),
    Rule("attention.dense.weight", "attention.dense.weight", join_columns, ("hidden", "hidden")),
)
NEOX_ATTENTION_BIASES = (
    Rule("attention.query_key_value.bias", "attention.query_key_value.bias", join_rows, ("projection",)),
    Rule("attention.dense.bias", "attention.dense.bias", total, ("hidden",)),
)
NEOX_SECOND_NORM = (
    Rule("post_attention_layernorm.weight", "post_attention_layernorm.weight", same_on_every_rank, ("hidden",)),
    Rule("post_attention_layernorm.bias", "post_attention_layernorm.bias", same_on_every_rank, ("hidden",)),
)
NEOX_SHARED_NORM = (
    Rule("input_layernorm.weight", "post_attention_layernorm.weight", same_on_every_rank, ("hidden",)),
    Rule("input_layernorm.bias", "post_attention_layernorm.bias", same_on_every_rank, ("hidden",)),
)
NEOX_MLP_LEGACY = (
    Rule("mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.dense_h_to_4h.bias", "mlp.dense_h_to_4h.bias", join_rows, ("intermediate",)),
    Rule("mlp.dense_4h_to_h.weight", "mlp.dense_4h_to_h.weight", join_columns, ("hidden", "intermediate")),
    Rule("mlp.dense_4h_to_h.bias", "mlp.dense_4h_to_h.bias", total, ("hidden",)),
)
NEOX_MLP = (
    Rule("mlp.linear1.weight", "mlp.dense_h_to_4h.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.linear1.bias", "mlp.dense_h_to_4h.bias", join_rows, ("intermediate",)),
    Rule("mlp.linear2.weight", "mlp.dense_4h_to_h.weight", join_columns, ("hidden", "intermediate")),
    Rule("mlp.linear2.bias", "mlp.dense_4h_to_h.bias", total, ("hidden",)),
)

# --- in every layer: Llama and Mistral --------------------------------------------------------------------------------
LLAMA_LAYER = (
    Rule("input_layernorm.scale", "input_layernorm.weight", same_on_every_rank, ("hidden",)),
    Rule("attention.query_key_value.weight", "self_attn.q_proj.weight", queries, ("projection", "hidden")),
    Rule("attention.query_key_value.weight", "self_attn.k_proj.weight", keys, ("projection", "hidden")),
    Rule("attention.query_key_value.weight", "self_attn.v_proj.weight", values, ("projection", "hidden")),
    Rule("attention.dense.weight", "self_attn.o_proj.weight", join_columns, ("hidden", "hidden")),
    Rule("post_attention_layernorm.scale", "post_attention_layernorm.weight", same_on_every_rank, ("hidden",)),
)
LLAMA_ATTENTION_BIASES = (
    Rule("attention.query_key_value.bias", "self_attn.q_proj.bias", queries, ("projection",)),
    Rule("attention.query_key_value.bias", "self_attn.k_proj.bias", keys, ("projection",)),
    Rule("attention.query_key_value.bias", "self_attn.v_proj.bias", values, ("projection",)),
    Rule("attention.dense.bias", "self_attn.o_proj.bias", total, ("hidden",)),
)
LLAMA_MLP_LEGACY = (
    Rule("mlp.w1.weight", "mlp.gate_proj.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.w3.weight", "mlp.up_proj.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.w2.weight", "mlp.down_proj.weight", join_columns, ("hidden", "intermediate")),
)
LLAMA_MLP = (  # linear1 is [up; gate] on every rank: gpt-neox activations.py, Gated_Activation
    Rule("mlp.linear1.weight", "mlp.up_proj.weight", up_half, ("up_and_gate", "hidden")),
    Rule("mlp.linear1.weight", "mlp.gate_proj.weight", gate_half, ("up_and_gate", "hidden")),
    Rule("mlp.linear2.weight", "mlp.down_proj.weight", join_columns, ("hidden", "intermediate")),
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The rules for one checkpoint: those ``outside`` the layers, and those repeated in every ``layer``."""

    outside: tuple[Rule, ...]
    layer: tuple[Rule, ...]
    layer_prefix: str  # of the Hugging Face name, with {i} for the layer's number


def neox_tables(*, legacy_mlp: bool, attention_biases: bool, shared_norm: bool, tied: bool, parallel: bool) -> Tables:
    """The tables of GPTNeoXForCausalLM."""
    layer = (
        *NEOX_LAYER,
        *(NEOX_ATTENTION_BIASES if attention_biases else ()),
        *(NEOX_SHARED_NORM if shared_norm else NEOX_SECOND_NORM),
        *(NEOX_MLP_LEGACY if legacy_mlp else NEOX_MLP),
    )
    outside = (*NEOX_OUTSIDE, *(() if tied else NEOX_UNTIED))
    return Tables(outside, _biases(layer, parallel), "gpt_neox.layers.{i}.")


def llama_tables(*, legacy_mlp: bool, attention_biases: bool, tied: bool, parallel: bool) -> Tables:
    """The tables of LlamaForCausalLM and MistralForCausalLM."""
    layer = (
        *LLAMA_LAYER,
        *(LLAMA_ATTENTION_BIASES if attention_biases else ()),
        *(LLAMA_MLP_LEGACY if legacy_mlp else LLAMA_MLP),
    )
    outside = (*LLAMA_OUTSIDE, *(() if tied else LLAMA_UNTIED))
    return Tables(outside, _biases(layer, parallel), "model.layers.{i}.")


def _biases(rules: tuple[Rule, ...], parallel: bool) -> tuple[Rule, ...]:
    """Without the parallel residual, row-parallel biases are copies that must be equal."""
    if parallel:
        return rules
    return tuple(replace(rule, merge=same_on_every_rank) if rule.merge is total else rule for rule in rules)
