"""The published Pythia configs: what the details table says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from publish.cards.details import details
from publish.cards.lint import lint_claims
from publish.records.run import RunFacts, Sizes, config_facts
from tests.cards import samples


def sizes(name: str, ranks: int | None) -> Sizes:
    """Sizes by the architecture's arithmetic; the vocabulary is padded to 128 x TP."""
    config = config_facts(samples.options(name))
    layers, width, vocabulary = config.layers or 0, config.hidden or 0, 50_304
    embedding = 2 * vocabulary * width
    body = 12 * layers * width * width + 13 * layers * width + 2 * width
    batch = (
        (config.micro_batch or 0)
        * (samples.options(name).get("gradient_accumulation_steps") or 1)
        * (ranks or 0)
        * (config.sequence or 0)
    )
    return Sizes("gpt_neox", "float16", embedding + body, embedding, vocabulary, batch or None, ranks)


def table(name: str, ranks: int | None = 32, **changes: Any) -> dict[str, tuple[str, str]]:
    run = RunFacts(config_facts({**samples.options(name), **changes}), sizes(name, ranks))
    rows = details(run, 143_000)
    return {row.name: (row.value, row.source) for row in rows}


def test_pythia_14m() -> None:
    assert table("pythia-14m") == {
        "Architecture": ("GPT-NeoX", "tensors, config"),
        "Parameters": ("14,067,712", "tensors"),
        "Parameters without embeddings": ("1,189,888", "tensors"),
        "Layers": ("6", "config"),
        "Width": ("128", "config"),
        "Attention heads": ("4", "config"),
        "Context": ("2,048 tokens", "config"),
        "Rotary embedding": ("25 % of each head, base 10,000", "config, GPT-NeoX default"),
        "Vocabulary": ("50,304 rows, padding included", "tensors"),
        "Weights stored as": ("float16", "tensors"),
        "Batch": (
            "2,097,152 tokens (1,024 sequences of 2,048), over 32 data-parallel ranks",
            "config, checkpoint",
        ),
        "Tokens in all": ("299,892,736,000 in 143,000 steps", "batch x last step"),
        "Optimizer": ("Adam (betas 0.9, 0.95; eps 1e-8)", "config"),
        "Learning rate": ("1e-3, cosine decay over 143,000 steps, not below 1e-4", "config"),
        "Warm-up": ("1 % (1,430 steps)", "config"),
        "Weight decay": ("0.1", "config"),
        "Gradient clipping": ("1", "config"),
        "Training precision": ("fp16, dynamic loss scale from 2^12", "config"),
        "Initialisation": ("small_init, output layers wang_init", "config"),
        "Seed": ("1234", "GPT-NeoX default"),
        "Data path": ("/mnt/ssd-2/pile_deduped/pile_20B_tokenizer_text_document", "config"),
        "Tokenizer file": ("/mnt/ssd-2/pile/20B_tokenizer.json", "config"),
    }


@pytest.mark.parametrize(
    ("name", "ranks", "parameters", "rate"),
    [
        ("pythia-160m-deduped", 32, "162,322,944", "6e-4, cosine decay over 143,000 steps, not below 6e-5"),
        ("pythia-1b", 64, "1,011,781,632", "2.5e-4, cosine decay over 143,000 steps, not below 2.5e-5"),
        ("pythia-6.9b", 64, None, "1.2e-4, cosine decay over 143,000 steps, not below 1.2e-5"),
    ],
)
def test_other_published_configs(name: str, ranks: int, parameters: str | None, rate: str) -> None:
    rows = table(name, ranks)
    assert rows["Batch"][0].startswith("2,097,152 tokens (1,024 sequences of 2,048)")
    assert rows["Tokens in all"][0].startswith("299,892,736,000 ")
    assert rows["Learning rate"] == (rate, "config")
    assert rows["Warm-up"][0] == "1 % (1,430 steps)"
    assert parameters is None or rows["Parameters"][0] == parameters


def test_without_the_number_of_ranks_no_batch_is_claimed() -> None:
    rows = table("pythia-14m", None)
    assert rows["Batch"] == ("32 sequences a rank; the number of ranks is not recorded", "config")
    assert "Tokens in all" not in rows


def test_a_global_batch_in_the_config_needs_no_ranks() -> None:
    options = {**samples.options("pythia-14m"), "train_batch_size": 1024}
    rows = details(RunFacts(config_facts(options), replace(sizes("pythia-14m", 32), data_parallel=None)), 1)
    (batch,) = [row for row in rows if row.name == "Batch"]
    assert (batch.value, batch.source) == ("2,097,152 tokens (1,024 sequences of 2,048)", "config")


def test_what_the_config_leaves_out_is_left_out_or_says_so() -> None:
    rows = details(RunFacts(config_facts({}), replace(samples.TINY, tokens_per_step=None, data_parallel=None)), 1)
    assert [(row.name, row.value, row.source) for row in rows][5:] == [
        ("Initialisation", "normal, output layers scaled_normal", "GPT-NeoX default"),
        ("Seed", "1234", "GPT-NeoX default"),
        ("Data path", "not recorded in the config", "config"),
    ]


@pytest.mark.parametrize(
    ("changes", "name", "value", "source"),
    [
        ({"seed": 1234}, "Seed", "1234", "config"),
        ({"warmup": 0.1}, "Warm-up", "10 % (14,300 steps)", "config"),
        ({"warmup": None}, "Warm-up", "1 % (1,430 steps)", "GPT-NeoX default"),
        ({"warmup": 0.01, "lr_decay_iters": None}, "Warm-up", "1 % (1,430 steps)", "config"),
        ({"lr_decay_style": None}, "Learning rate", "1e-3, linear decay over 143,000 steps, not below 1e-4",
         "config, GPT-NeoX default"),
        ({"lr_decay_style": "constant"}, "Learning rate", "1e-3, constant", "config"),
        ({"min_lr": None}, "Learning rate", "1e-3, cosine decay over 143,000 steps", "config"),
        ({"optimizer": {"type": "Adam", "params": {"lr": "1e-3", "eps": "1e-8"}}}, "Optimizer", "Adam (eps 1e-8)",
         "config"),
        ({"fp16": {"enabled": True, "loss_scale": 1024}}, "Training precision", "fp16, loss scale 1,024", "config"),
        ({"fp16": None, "bf16": {"enabled": True}}, "Training precision", "bf16", "config"),
        ({"fp16": {"enabled": False}, "precision": "bfloat16"}, "Training precision", "bfloat16", "config"),
        ({"train_data_paths": ["a", "b"]}, "Data path", "a, b", "config"),
        ({"num_kv_heads": 2}, "Key-value heads", "2", "config"),
    ],
)  # fmt: skip
def test_as_configured(changes: dict[str, Any], name: str, value: str, source: str) -> None:
    assert table("pythia-14m", **changes)[name] == (value, source)


CONFIG = config_facts(samples.options("pythia-14m"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("The learning rate has a 10 % warmup.", "warm-up"),
        ("Warm-up was over 10% of training.", "warm-up"),
        ("It has 12 layers.", "layers"),
        ("It has 8 attention heads.", "heads"),
        ("Trained with seed 3.", "seed"),
    ],
)
def test_a_claim_against_the_config_is_found(text: str, rule: str) -> None:
    assert [found.rule for found in lint_claims(text, CONFIG)] == [rule]


@pytest.mark.parametrize(
    "text", ["1 % warm-up", "warmup of 1.0 %", "6 layers, 4 attention heads, seed 1234", "deduplicated data"]
)
def test_a_claim_as_configured_is_none(text: str) -> None:
    assert lint_claims(text, CONFIG) == ()


def test_the_data_set_that_was_not_trained_on() -> None:
    (finding,) = lint_claims("", CONFIG, datasets=("EleutherAI/pile",))
    assert finding.rule == "dataset"
    assert "pile_deduped" in finding.detail
    assert lint_claims("", CONFIG, datasets=("EleutherAI/the_pile_deduplicated",)) == ()
    standard = replace(CONFIG, data_paths=("/fsx/pile/pile_20B_tokenizer_text_document",))
    assert [found.rule for found in lint_claims("on the deduplicated Pile", standard)] == ["dataset"]
    assert lint_claims("on the Pile, not deduplicated", standard, datasets=("EleutherAI/pile",)) == ()
