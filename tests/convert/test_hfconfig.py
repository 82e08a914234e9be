"""``config.json`` means the same network to transformers as to GPT-NeoX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, GenerationConfig
from transformers.activations import ACT2FN

from publish.convert.architecture import HIDDEN_ACT
from publish.convert.hfconfig import canonical_json, generation_config, hf_config
from publish.convert.plan import ConversionPlan, make_plan
from tests.convert.rawmodel import LLAMA, MISTRAL, NEOX, Case, config_of, raw_of


def plan_of(case: Case, **options: Any) -> ConversionPlan:
    return make_plan(raw_of(case)[1], config_of(case), **options)


def loaded(plan: ConversionPlan, folder: Path) -> Any:
    (folder / "config.json").write_bytes(canonical_json(hf_config(plan, 0, 1)))
    return AutoConfig.from_pretrained(folder)


def check_shared(config: Any, case: Case) -> None:
    net = case.network
    assert config.vocab_size == case.vocabulary
    assert (config.hidden_size, config.num_hidden_layers) == (net.hidden, net.layers)
    assert (config.num_attention_heads, config.intermediate_size) == (net.heads, case.intermediate)
    assert (config.bos_token_id, config.eos_token_id) == (0, 1)
    assert config.max_position_embeddings == net.context
    assert config.initializer_range == net.initializer_range
    assert config.tie_word_embeddings == net.tied
    assert str(config.dtype).removeprefix("torch.") == case.dtype
    assert config.hidden_act == HIDDEN_ACT[net.activation]
    assert config.rope_parameters["rope_type"] == "default"
    assert config.rope_parameters["rope_theta"] == net.rotary_base


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_gpt_neox(dtype: str, parallel: bool, biases: bool, tmp_path: Path) -> None:
    network = replace(NEOX, parallel_residual=parallel, rotary_fraction=0.5, rotary_base=5000, norm_epsilon=1e-3)
    case = Case(replace(network, tied=not biases), dtype=dtype, attention_biases=biases)
    config = loaded(plan_of(case), tmp_path)
    check_shared(config, case)
    assert config.model_type == "gpt_neox"
    assert config.architectures == ["GPTNeoXForCausalLM"]
    assert config.rope_parameters["partial_rotary_factor"] == 0.5
    assert (config.use_parallel_residual, config.attention_bias) == (parallel, biases)
    assert config.layer_norm_eps == 1e-3
    assert (config.hidden_dropout, config.attention_dropout) == (0, 0)


@pytest.mark.parametrize("biases", [True, False])
def test_llama(biases: bool, tmp_path: Path) -> None:
    case = Case(replace(LLAMA, kv_heads=2, norm_epsilon=1e-8, rotary_base=500_000), attention_biases=biases)
    config = loaded(plan_of(case), tmp_path)
    check_shared(config, case)
    assert config.model_type == "llama"
    assert (config.num_key_value_heads, config.head_dim) == (2, 4)
    assert (config.attention_bias, config.mlp_bias) == (biases, False)
    assert config.rms_norm_eps == 1e-8


def test_the_window_of_mistral_includes_the_query(tmp_path: Path) -> None:
    case = Case(replace(MISTRAL, kv_heads=2), attention_biases=False)
    config = loaded(plan_of(case), tmp_path)
    check_shared(config, case)
    assert config.model_type == "mistral"
    assert config.sliding_window == 9
    assert (config.num_key_value_heads, config.head_dim) == (2, 4)


def test_the_file_has_the_keys_of_both_versions() -> None:
    neox = hf_config(plan_of(Case(NEOX)), None, None)
    assert (neox["rotary_pct"], neox["rotary_emb_base"]) == (0.5, 10000)
    assert neox["torch_dtype"] == neox["dtype"] == "float16"
    assert neox["bos_token_id"] is None
    llama = hf_config(plan_of(Case(LLAMA)), None, None)
    assert llama["rope_theta"] == 10000


def test_a_cast_shows_in_the_dtype() -> None:
    assert hf_config(plan_of(Case(NEOX), dtype="float32"), 0, 0)["dtype"] == "float32"


def test_every_activation_is_one_of_transformers() -> None:
    assert set(HIDDEN_ACT.values()) <= set(ACT2FN)


def test_generation_config(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_bytes(canonical_json(generation_config(0, 2)))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.bos_token_id, config.eos_token_id) == (0, 2)


def test_json_is_canonical() -> None:
    text = canonical_json({"b": 1, "a": [1.0, None]})
    assert text == b'{\n  "a": [\n    1.0,\n    null\n  ],\n  "b": 1\n}\n'
    assert json.loads(text) == {"a": [1.0, None], "b": 1}
