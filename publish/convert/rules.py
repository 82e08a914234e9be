"""Which GPT-NeoX name becomes which Hugging Face name, and how ranks merge: one table per architecture and era.

Sources: gpt-neox ``megatron/model/transformer.py`` at c00ce70c (June 2023) and ea7aefd8 (May 2026), and the
``modeling_*.py`` of transformers. Shapes are those of the merged GPT-NeoX tensor, by the names of `sizes.Sizes`.
Row-parallel biases: gpt-neox adds them before the all-reduce with gpt-j-residual, so the ranks' biases add up;
otherwise each rank holds a full copy, which must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from publish.convert.merge import (
    Merge,
    gate_half,
    join_columns,
    join_rows,
    keys,
    queries,
    same_on_every_rank,
    total,
    up_half,
    values,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """GPT-NeoX's ``neox``, of merged ``shape``, becomes Hugging Face's ``hf`` by ``merge``."""

    neox: str
    hf: str
    merge: Merge
    shape: tuple[str, ...]


_EXTRA_STATE = "TransformerEngine's fp8 scales, no weight"
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

# --- outside the layers -------------------------------------------------------------------------------------------
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
NEOX_MLP_2023 = (
    Rule("mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.dense_h_to_4h.bias", "mlp.dense_h_to_4h.bias", join_rows, ("intermediate",)),
    Rule("mlp.dense_4h_to_h.weight", "mlp.dense_4h_to_h.weight", join_columns, ("hidden", "intermediate")),
    Rule("mlp.dense_4h_to_h.bias", "mlp.dense_4h_to_h.bias", total, ("hidden",)),
)
NEOX_MLP_2026 = (
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
LLAMA_MLP_2023 = (
    Rule("mlp.w1.weight", "mlp.gate_proj.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.w3.weight", "mlp.up_proj.weight", join_rows, ("intermediate", "hidden")),
    Rule("mlp.w2.weight", "mlp.down_proj.weight", join_columns, ("hidden", "intermediate")),
)
LLAMA_MLP_2026 = (  # linear1 is [up; gate] on every rank: gpt-neox activations.py, Gated_Activation
    Rule("mlp.linear1.weight", "mlp.up_proj.weight", up_half, ("up_and_gate", "hidden")),
    Rule("mlp.linear1.weight", "mlp.gate_proj.weight", gate_half, ("up_and_gate", "hidden")),
    Rule("mlp.linear2.weight", "mlp.down_proj.weight", join_columns, ("hidden", "intermediate")),
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The rules that one checkpoint needs: ``layer`` ones are repeated for every layer."""

    outside: tuple[Rule, ...]
    layer: tuple[Rule, ...]
    layer_prefix: str  # of the HF name, with {i}


def neox_tables(*, era: str, attention_biases: bool, shared_norm: bool, tied: bool, parallel: bool) -> Tables:
    """The tables of GPTNeoXForCausalLM. ``era``: 2023 or 2026."""
    layer = (
        *NEOX_LAYER,
        *(NEOX_ATTENTION_BIASES if attention_biases else ()),
        *(NEOX_SHARED_NORM if shared_norm else NEOX_SECOND_NORM),
        *(NEOX_MLP_2023 if era == "2023" else NEOX_MLP_2026),
    )
    outside = (*NEOX_OUTSIDE, *(() if tied else NEOX_UNTIED))
    return Tables(outside, _biases(layer, parallel), "gpt_neox.layers.{i}.")


def llama_tables(*, era: str, attention_biases: bool, tied: bool, parallel: bool) -> Tables:
    """The tables of LlamaForCausalLM and MistralForCausalLM. ``era``: 2023 or 2026."""
    layer = (
        *LLAMA_LAYER,
        *(LLAMA_ATTENTION_BIASES if attention_biases else ()),
        *(LLAMA_MLP_2023 if era == "2023" else LLAMA_MLP_2026),
    )
    outside = (*LLAMA_OUTSIDE, *(() if tied else LLAMA_UNTIED))
    return Tables(outside, _biases(layer, parallel), "model.layers.{i}.")


def _biases(rules: tuple[Rule, ...], parallel: bool) -> tuple[Rule, ...]:
    """Row-parallel biases add up with the parallel residual, and are copies without it."""
    if parallel:
        return rules
    return tuple(replace(rule, merge=same_on_every_rank) if rule.merge is total else rule for rule in rules)
