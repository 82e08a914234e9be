"""The published configs of all Pythia sizes: the facts that a card states of them, as the world knows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from publish.cards.details import details
from publish.errors import ConfigError
from publish.neox import config
from publish.neox.state import TrainingState
from publish.records.run import RunFacts, Sizes, config_facts
from publish.release.job import tokens_per_step
from tests.conftest import shared

# layers, width, heads, rate as configured, tensor parallel; parameters where they are known
KNOWN: Mapping[str, tuple[int, int, int, str, int, int | None]] = {
    "14m": (6, 128, 4, "1e-3", 1, 14_067_712),
    "31m": (6, 256, 8, "1e-3", 1, 30_494_720),
    "70m": (6, 512, 8, "1e-3", 1, 70_426_624),
    "160m": (12, 768, 12, "6e-4", 1, 162_322_944),
    "410m": (24, 1024, 16, "3e-4", 1, 405_334_016),
    "1b": (16, 2048, 8, "2.5e-4", 1, None),
    "1.4b": (24, 2048, 16, "2e-4", 1, None),
    "2.8b": (32, 2560, 32, "1.6e-4", 1, None),
    "6.9b": (32, 4096, 32, "1.2e-4", 2, None),
}
# 12b and 12b-deduped are left out: one is not valid YAML, the other has layers and heads exchanged
NAMES = [*KNOWN, *(f"{size}-deduped" for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b"))]
NORMAL = {"6.9b", "6.9b-deduped"}  # their files name no init method, which means normal to GPT-NeoX


def options(name: str) -> Mapping[str, Any]:
    path = shared(f"pythia/configs/pythia-{name}.yml")
    return config.merge({path.name: path.read_bytes()}, name)


def counted(options: Mapping[str, Any], tensor_parallel: int) -> tuple[int, int, int]:
    """Parameters, those in embeddings, and rows, of transformers' own model of these sizes; nothing is allocated."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    rows = -(-50_277 // (128 * tensor_parallel)) * 128 * tensor_parallel
    width = options["hidden_size"]
    config = GPTNeoXConfig(
        vocab_size=rows,
        hidden_size=width,
        num_hidden_layers=options["num_layers"],
        num_attention_heads=options["num_attention_heads"],
        intermediate_size=4 * width,
    )
    with torch.device("meta"):
        model = GPTNeoXForCausalLM(config)
    embeddings = model.get_input_embeddings().weight.numel() + model.get_output_embeddings().weight.numel()
    return sum(parameter.numel() for parameter in model.parameters()), embeddings, rows


@pytest.mark.parametrize("name", NAMES)
def test_the_card_of_a_published_config(name: str) -> None:
    found = options(name)
    layers, width, heads, rate, tensor_parallel, parameters = KNOWN[name.removesuffix("-deduped")]
    total, embeddings, rows = counted(found, tensor_parallel)
    micro, accumulation = found["train_micro_batch_size_per_gpu"], found.get("gradient_accumulation_steps", 1)
    ranks = 1024 // (micro * accumulation)
    tokens = tokens_per_step(found, TrainingState(iteration=1, data_parallel=ranks))
    sizes = Sizes("gpt_neox", "float16", total, embeddings, rows, tokens, ranks)
    run = RunFacts(config_facts(found), sizes)
    card = {row.name: (row.value, row.source) for row in details(run, 143_000)}
    assert card["Layers"] == (str(layers), "config")
    assert card["Width"] == (f"{width:,}", "config")
    assert card["Attention heads"] == (str(heads), "config")
    assert card["Context"] == ("2,048 tokens", "config")
    assert card["Learning rate"][0].startswith(f"{rate}, cosine decay over 143,000 steps, not below ")
    assert card["Warm-up"] == ("1 % (1,430 steps)", "config")
    assert card["Batch"][0].startswith("2,097,152 tokens (1,024 sequences of 2,048)")
    assert card["Tokens in all"][0] == "299,892,736,000 in 143,000 steps"
    assert card["Seed"] == ("1234", "GPT-NeoX default")
    methods = "normal, output layers scaled_normal" if name in NORMAL else "small_init, output layers wang_init"
    assert card["Initialisation"] == (methods, "GPT-NeoX default" if name in NORMAL else "config")
    assert parameters is None or card["Parameters"] == (f"{parameters:,}", "tensors")
    if name == "14m":
        assert card["Parameters without embeddings"] == ("1,189,888", "tensors")
    # 14M and 31M were trained on deduplicated data under their plain names: the path says so
    if name not in ("14m", "31m"):
        assert ("dedup" in card["Data path"][0]) == name.endswith("-deduped")


def test_a_published_file_that_is_no_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        options("12b")
