"""``config.json`` and ``generation_config.json``: pure functions of plan and tokenizer.

Transformers 4.38 and 5 read the same network from them. Where their keys differ the files have both: ``rotary_pct``,
``rotary_emb_base`` and ``rope_theta`` (4.x) and ``rope_parameters`` (5.x); ``torch_dtype`` and ``dtype``.
Sources: transformers ``configuration_{gpt_neox,llama,mistral}.py`` at 4.38 and 5.23.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from publish.convert.architecture import CLASSES, GPT_NEOX, HIDDEN_ACT, LLAMA, MISTRAL
from publish.convert.plan import ConversionPlan
from publish.errors import ConfigError

CONFIG_NAME, GENERATION_NAME = "config.json", "generation_config.json"
_MEASURED = frozenset(  # keys whose values follow from the tensors or the tokenizer
    {"architectures", "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    | {"num_key_value_heads", "head_dim", "intermediate_size", "tie_word_embeddings", "attention_bias", "mlp_bias"}
    | {"torch_dtype", "dtype", "bos_token_id", "eos_token_id"}
)


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys, indented by two spaces, with a newline at the end."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def hf_config(plan: ConversionPlan, bos: int | None, eos: int | None) -> dict[str, Any]:
    """The config of the network that ``plan`` describes; ``bos`` and ``eos`` are the tokenizer's ids."""
    network = plan.network
    return {
        "architectures": [CLASSES[plan.architecture]],
        "model_type": plan.architecture,
        "vocab_size": plan.vocabulary,
        "hidden_size": network.hidden,
        "num_hidden_layers": network.layers,
        "num_attention_heads": network.heads,
        "intermediate_size": plan.intermediate,
        "hidden_act": HIDDEN_ACT[network.activation],
        "max_position_embeddings": network.context,
        "initializer_range": network.initializer_range,
        "tie_word_embeddings": network.tied,
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": plan.dtype,
        "dtype": plan.dtype,
        **(_neox(plan) if plan.architecture == GPT_NEOX else _llama(plan)),
        **dict(plan.overrides),
    }


def with_overrides(plan: ConversionPlan, overrides: Mapping[str, Any]) -> ConversionPlan:
    """``plan`` with these values in its ``config.json`` instead of those of the training config.

    Raises:
        ConfigError: a key is unknown, or its value follows from the tensors.
    """
    own = hf_config(plan, None, None)
    for key in overrides:
        if key not in own:
            known = ", ".join(sorted(own.keys() - _MEASURED))
            raise ConfigError(f"overrides: config.json has no key {key}", plan.where, f"the keys are {known}")
        if key in _MEASURED:
            raise ConfigError(
                f"overrides: {key} follows from the tensors, which do not load with another value",
                plan.where,
                f"remove {key} from the overrides",
            )
    return replace(plan, overrides=tuple(sorted(overrides.items())))


def without_overrides(plan: ConversionPlan) -> ConversionPlan:
    return replace(plan, overrides=())


def _neox(plan: ConversionPlan) -> dict[str, Any]:
    network = plan.network
    return {
        "attention_bias": plan.attention_biases,
        "hidden_dropout": 0.0,
        "classifier_dropout": 0.0,
        "layer_norm_eps": network.norm_epsilon,
        "use_parallel_residual": network.parallel_residual,
        "rotary_pct": float(network.rotary_fraction),
        "rotary_emb_base": network.rotary_base,
        "rope_scaling": None,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": network.rotary_base,
            "partial_rotary_factor": float(network.rotary_fraction),
        },
    }


def _llama(plan: ConversionPlan) -> dict[str, Any]:
    network = plan.network
    config: dict[str, Any] = {
        "num_key_value_heads": network.kv_heads,
        "head_dim": network.head_size,
        "rms_norm_eps": network.norm_epsilon,
        "rope_theta": float(network.rotary_base),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(network.rotary_base)},
    }
    if plan.architecture == LLAMA:
        config |= {
            "attention_bias": plan.attention_biases,
            "mlp_bias": False,
            "rope_scaling": None,
        }
    if plan.architecture == MISTRAL:
        # in GPT-NeoX a query attends to itself and the w positions before it; transformers' window includes the query
        window = network.sliding_window
        config |= {"sliding_window": None if window is None else window + 1}
    return config


def generation_config(bos: int | None, eos: int | None) -> dict[str, Any]:
    """The special tokens for ``generate``; the rest are the defaults of transformers."""
    return {"_from_model_config": True, "bos_token_id": bos, "eos_token_id": eos}
