"""Plans account for every tensor and number before a weight is read, and are equal for all steps of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from publish.convert.plan import make_plan
from publish.errors import ConfigError, ConversionError
from publish.neox.checkpoint import RawCheckpoint
from publish.records.manifest import note
from tests.convert.rawmodel import (
    LLAMA,
    MISTRAL,
    NEOX,
    Case,
    MemoryFiles,
    checkpoint_of,
    config_of,
    hf_model,
    raw_of,
    split,
)


def ranks_of(case: Case) -> list[dict[str, np.ndarray]]:
    return split(case, hf_model(case))


def test_a_plan_reads_no_weight() -> None:
    case = Case(NEOX, tensor_parallel=2)
    _, raw = raw_of(case)
    plan = make_plan(raw, config_of(case))
    assert raw.files.bytes_read == 0
    assert plan.parameters == sum(array.size for array in hf_model(case).values())
    assert plan.weight_bytes == 2 * plan.parameters
    assert [file.name for file in plan.files] == ["model.safetensors"]


def test_the_digest_does_not_depend_on_the_files() -> None:
    case = Case(NEOX)
    ranks = ranks_of(case)
    one = make_plan(checkpoint_of(ranks, "float16"), config_of(case))
    shuffled = [dict(sorted(rank.items(), reverse=True)) for rank in ranks]
    two = make_plan(checkpoint_of(shuffled, "float16"), config_of(case))
    assert one.recipes != two.recipes
    assert one.digest == two.digest
    assert make_plan(checkpoint_of(ranks, "float16"), config_of(case), dtype="float32").digest != one.digest
    serial = replace(case, network=replace(NEOX, parallel_residual=False))
    assert make_plan(checkpoint_of(ranks, "float16"), config_of(serial)).digest != one.digest


def test_frequencies_are_dropped_with_a_reason() -> None:
    case = Case(NEOX, legacy_mlp=True)
    ranks = ranks_of(case)
    ranks[0]["layers.0.attention.rotary_emb.inv_freq"] = np.ones(1, "<f2")
    plan = make_plan(checkpoint_of(ranks, "float16"), config_of(case))
    assert plan.dropped == (
        ("layers.0.attention.rotary_emb.inv_freq", "transformers computes it from the rotary base"),
    )
    ranks[0]["layers.0.attention.rotary_emb.inv_freq"] = np.ones(2, "<f2")
    with pytest.raises(ConfigError, match=r"rotary_pct\) is 1 in the config but 2 in the checkpoint"):
        make_plan(checkpoint_of(ranks, "float16"), config_of(case))


def test_a_shared_norm_drops_the_unused_one() -> None:
    case = Case(replace(NEOX, shared_norm=True))
    _, raw = raw_of(case)
    plan = make_plan(raw, config_of(case))
    assert len(plan.dropped) == 4
    by_name = {recipe.name: recipe for recipe in plan.recipes}
    source = by_name["gpt_neox.layers.0.post_attention_layernorm.weight"].slices[0].tensor.name
    assert source == "layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.1.attention.slopes", r"unmapped tensors: layers\.1\.attention\.slopes"),
        ("position_embedding.weight", r"unmapped tensors: position_embedding\.weight"),
        ("unembedding.bias", r"unmapped tensors: unembedding\.bias"),
    ],
)
def test_unmapped_tensors_are_refused(name: str, message: str) -> None:
    case = Case(NEOX)
    ranks = ranks_of(case)
    ranks[0][name] = np.zeros(4, "<f2")
    with pytest.raises(ConversionError, match=message):
        make_plan(checkpoint_of(ranks, "float16"), config_of(case))


@pytest.mark.parametrize("name", sorted(ranks_of(Case(NEOX))[0]))
def test_every_missing_tensor_is_refused(name: str) -> None:
    case = Case(NEOX)
    ranks = ranks_of(case)
    del ranks[0][name]
    with pytest.raises((ConversionError, ConfigError)):
        make_plan(checkpoint_of(ranks, "float16"), config_of(case))


def test_tied_and_untied_must_match_the_config() -> None:
    untied, tied = Case(NEOX), Case(replace(NEOX, tied=True))
    with pytest.raises(ConversionError, match=r"unmapped tensors: unembedding\.weight"):
        make_plan(raw_of(untied)[1], config_of(tied))
    with pytest.raises(ConversionError, match=r"missing tensors: unembedding\.weight"):
        make_plan(raw_of(tied)[1], config_of(untied))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "num_layers is 3 in the config but 2 in the checkpoint"),
        ({"hidden": 32}, "hidden_size is 32 in the config but 16 in the checkpoint"),
        ({"context": 64}, "max_position_embeddings is 64 in the config but 32"),
        ({"heads": 2, "kv_heads": 2}, "num_attention_heads is 2 in the config but 4 in the checkpoint"),
    ],
)
def test_a_config_that_contradicts_the_checkpoint(change: dict[str, Any], message: str) -> None:
    case = Case(NEOX)
    args = {"num_attention_heads": 4, "max_position_embeddings": 32}
    raw = checkpoint_of(ranks_of(case), "float16", args)
    with pytest.raises(ConfigError, match=message):
        make_plan(raw, config_of(replace(case, network=replace(NEOX, **change))))


def test_sizes_of_vocabulary_and_mlp() -> None:
    case = Case(NEOX)
    raw = checkpoint_of(ranks_of(case), "float16", {"padded_vocab_size": 25})
    with pytest.raises(ConfigError, match="padded_vocab_size is 25 in the config but 24 in the checkpoint"):
        make_plan(raw, config_of(case))
    _, raw = raw_of(case)
    with pytest.raises(ConfigError, match="intermediate_size 48 makes the MLP 48 wide, but it is 32"):
        make_plan(raw, config_of(replace(case, intermediate=48)))
    with pytest.raises(ConfigError, match=r"\(not given\) makes the MLP 64 wide, but it is 32"):
        make_plan(raw, config_of(case, intermediate_size=None))


def test_a_shard_of_another_size_is_named() -> None:
    case = Case(NEOX, tensor_parallel=2)
    ranks = ranks_of(case)
    ranks[1]["layers.1.attention.dense.weight"] = np.zeros((16, 9), "<f2")
    with pytest.raises(ConfigError, match=r"has shape \[16, 9\] on rank 1, the config makes it \[16, 8\]"):
        make_plan(checkpoint_of(ranks, "float16"), config_of(case))


def test_several_dtypes_and_unsupported_ones() -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    name = "layers.1.mlp.linear1.bias"
    odd = dict(raw.ranks[0]) | {name: replace(raw.ranks[0][name], dtype="bfloat16")}
    mixed = RawCheckpoint("memory", MemoryFiles({}), "pipeline", 1, 1, (odd,), raw.state)
    with pytest.raises(ConversionError, match=r"several dtypes: bfloat16 \(layers\.1\.mlp\.linear1\.bias\), float16"):
        make_plan(mixed, config_of(case))
    doubles = {key: replace(tensor, dtype="float64") for key, tensor in raw.ranks[0].items()}
    wide = RawCheckpoint("memory", MemoryFiles({}), "pipeline", 1, 1, (doubles,), raw.state)
    with pytest.raises(ConversionError, match="weights of float64"):
        make_plan(wide, config_of(case))
    with pytest.raises(ConversionError, match="weights of int8"):
        make_plan(raw, config_of(case), dtype="int8")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (replace(NEOX, norm="rmsnorm"), "rmsnorm without a gated MLP"),
        (replace(LLAMA, norm="layernorm"), "layernorm with a gated MLP"),
        (replace(NEOX, kv_heads=2), "layernorm with num-kv-heads 2 of 4"),
        (replace(NEOX, sliding_window=4), "layernorm with sliding-window-width"),
        (replace(NEOX, activation="softsign"), "activation 'softsign'"),
        (replace(LLAMA, parallel_residual=True), "rmsnorm with gpt-j-residual"),
        (replace(LLAMA, rotary_fraction=0.5), "rmsnorm with rotary-pct 0.5"),
        (replace(NEOX, rotary_fraction=0.25), "rotary-pct 0.25 rotates 1 of a head's 4 dimensions"),
        (replace(NEOX, rotary_fraction=0.0), "rotary-pct 0 rotates 0 of a head's 4 dimensions"),
        (replace(NEOX, norm="scalenorm"), "norm 'scalenorm'"),
    ],
)
def test_networks_without_a_counterpart_are_refused_by_name(network: Any, message: str) -> None:
    case = Case(LLAMA if network.norm == "rmsnorm" and network.gated else NEOX, attention_biases=False)
    _, raw = raw_of(case)
    with pytest.raises(ConfigError, match=message):
        make_plan(raw, config_of(replace(case, network=network)))


@pytest.mark.parametrize(
    ("case", "name", "message"),
    [
        (Case(NEOX), "layers.0.attention.alibi_embed.slopes", "alibi"),
        (Case(NEOX), "layers.0.mlp.fc1_weight", "fused TransformerEngine modules"),
        (Case(LLAMA), "layers.0.mlp.linear1.bias", "biases in the MLP"),
        (Case(MISTRAL, attention_biases=True), "layers.0.x", "MistralForCausalLM has none"),
    ],
)
def test_tensors_without_a_counterpart_are_refused_by_name(case: Case, name: str, message: str) -> None:
    ranks = ranks_of(case)
    ranks[0][name] = np.zeros(4, "<f2")
    with pytest.raises(ConfigError, match=message):
        make_plan(checkpoint_of(ranks, "float16"), config_of(case))


def test_heads_must_be_divisible_by_the_ranks() -> None:
    case = Case(replace(LLAMA, heads=4, kv_heads=2), tensor_parallel=2)
    ranks = ranks_of(case)
    with pytest.raises(ConfigError, match="num_kv_heads is 1, which 2 tensor-parallel ranks cannot share"):
        make_plan(checkpoint_of(ranks, "float16"), config_of(replace(case, network=replace(case.network, kv_heads=1))))


def test_the_architecture_can_be_overridden_between_llama_and_mistral() -> None:
    case = Case(MISTRAL, attention_biases=False)
    _, raw = raw_of(case)
    assert make_plan(raw, config_of(case)).architecture == "mistral"
    plan = make_plan(raw, config_of(case), architecture="llama")
    assert plan.architecture == "llama"
    assert note("sliding-window-left-out", window=8) in plan.notes
    with pytest.raises(ConfigError, match="this is a mistral network, not 'gpt_neox'"):
        make_plan(raw, config_of(case), architecture="gpt_neox")


def test_an_epsilon_outside_the_root_is_noted() -> None:
    case = Case(replace(LLAMA, epsilon_outside_root=True), legacy_mlp=True)
    _, raw = raw_of(case)
    assert make_plan(raw, config_of(case)).notes[0].code == "rmsnorm-epsilon"


def test_large_models_are_sharded_in_the_models_order() -> None:
    case = Case(NEOX)
    _, raw = raw_of(case)
    plan = make_plan(raw, config_of(case), max_file_bytes=3000)
    assert plan.files[0].name == f"model-00001-of-{len(plan.files):05}.safetensors"
    assert len(plan.files) > 2
    for file in plan.files:
        assert len(file.recipes) == 1 or sum(recipe.nbytes for recipe in file.recipes) <= 3000
        assert list(file.recipes) == sorted(file.recipes, key=lambda recipe: recipe.name)
    assert sorted(r.name for file in plan.files for r in file.recipes) == sorted(r.name for r in plan.recipes)
