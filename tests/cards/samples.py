"""Facts to write cards of: a real config, with figures as its run would give them. Digests are made up."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from publish.cards.details import Fact, Sizes, decimal, details
from publish.cards.facts import Comparison, Deviation, Explanation, StepFacts, StepLine, SuiteFacts
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.release_file import CardText
from publish.schedule import PYTHIA

CONFIGS = Path(__file__).parent / "configs"
REPO = "EleutherAI/pythia-tiny-seed1234"
SOURCE = "EleutherAI/neox-ckpt-pythia-tiny-seed1234"
TOKENS = 256  # a step of the tiny run: 8 sequences of 32
BRANCHES = tuple(f"step{step}" for step in PYTHIA)


def options(name: str) -> dict[str, Any]:
    """The options of one of the configs beside this file, names with underscores."""
    loaded = yaml.safe_load((CONFIGS / f"{name}.yml").read_text("utf-8"))
    return {key.replace("-", "_"): value for key, value in loaded.items()}


def digest(*of: object) -> str:
    """Sixty-four characters that look like a SHA-256, and are one: of a few words."""
    return hashlib.sha256(" ".join(map(str, of)).encode()).hexdigest()


TINY = Sizes(
    architecture="GPT-NeoX",
    dtype="float16",
    parameters=14_784,
    embedding_parameters=8_192,
    vocabulary=256,
    tensor_parallel=1,
    tokens_per_step=TOKENS,
    data_parallel=1,
)
TEXT = CardText(
    title="Pythia-tiny-seed1234",
    license="apache-2.0",
    language=("en",),
    datasets=("EleutherAI/pile",),
    tags=("pythia", "causal-lm"),
    papers=("https://arxiv.org/abs/2304.01373", "https://openreview.net/forum?id=bmrYu2Ekdz"),
    notes="A model of **14,784 parameters**, trained to test release tools.\n\nIt is of no use for language:\n\n"
    "- its vocabulary has 250 entries;\n- its context is 32 tokens.\n",
)
ERRATUM = "Until 2026-11-02 the branch step512 had no tokenizer files. Its weights are unchanged."
GATES = (
    Gate("identity", "passed", "iteration {step}; 6 sizes equal the config's"),
    Gate("file-length", "passed", "1 weight file, 32,472 bytes as claimed"),
    Gate("completeness", "passed", "30 source tensors made 28, 2 dropped"),
    Gate("finite", "passed", "all 14,784 elements are finite"),
    Gate("bits", "passed", "28 tensors, 29,568 bytes equal the source's"),
    Gate("strict-load", "passed", "GPTNeoXForCausalLM loads all 28 tensors, none missing or left over"),
    Gate("logits", "skipped", "same plan and config as the first step"),
)
COMPARISON = Comparison(
    title="Step 0 against pythia-tiny-seed1",
    verdict="Same initialisation, different random state: 18 of 28 tensors are equal bit for bit, 10 differ.",
    reasons=(
        "The 18 equal tensors are biases and layer norms, which GPT-NeoX sets to constants.",
        "The other 10 have the standard deviation that small_init and wang_init ask for, in both models.",
    ),
    columns=("Layer type", "Left std", "Right std", "Ratio", "Expected std"),
    rows=(
        ("Embedding", "0.1575", "0.1561", "1.009", "0.1581"),
        ("QKV", "0.1593", "0.1574", "1.012", "0.1581"),
        ("Attention dense", "0.2413", "0.2504", "0.964", "0.2500"),
        ("MLP up", "0.1569", "0.1588", "0.988", "0.1581"),
        ("MLP down", "0.2476", "0.2461", "1.006", "0.2500"),
    ),
)
DEVIATION = Deviation(
    what="config.json says hidden_act: gelu, where GPT-NeoX computed its tanh form",
    because="consistency with the published suite",
    effect="logits differ by at most 1.2e-3 on 64 positions",
)


def line(step: int) -> StepLine:
    """The table's line of one step; step 1 has the weights of step 0."""
    commit = digest("commit", step)[:40]
    return StepLine(step, f"step{step}", step * TOKENS, digest("weights", max(step, 1)), commit)


EXPLANATION = Explanation(
    "The initial weights were recomputed from seed 1234: they are what torch's generator on a CPU draws in GPT-NeoX's "
    "order of construction, value by value.",
    (
        Fact("Random tensors", "10, all reproduced", "recomputed"),
        Fact("Values", "14,336 of 14,336 equal in every bit", "recomputed"),
        Fact("Generator's stored state afterwards", "equal", "checkpoint"),
    ),
)


def suite(**changes: Any) -> SuiteFacts:
    """The suite's card of the tiny run."""
    facts = SuiteFacts(
        repo=REPO,
        details=details(options("pythia-tiny-seed1234"), TINY, last_step=PYTHIA[-1]),
        lines=tuple(map(line, PYTHIA)),
        has_tokenizer=True,
        gates=(
            *(Gate(gate.name, "passed", f"passed on {len(PYTHIA)}") for gate in GATES[:-1]),
            Gate("logits", "passed", f"passed on 2, skipped on {len(PYTHIA) - 2}"),
        ),
        source=SOURCE,
        converter="publish 0.1.0",
        expected=("step0 and step1 hold the same weights: the learning rate is 0 on the first iteration.",),
        overrides=(DEVIATION,),
        comparisons=(COMPARISON,),
        explanation=EXPLANATION,
        text=replace(TEXT, errata=(ERRATUM,)),
    )
    return replace(facts, **changes)


def step(number: int = 1000, **changes: Any) -> StepFacts:
    """A step's card of the tiny run."""
    facts = StepFacts(
        repo=REPO,
        branch=f"step{number}",
        step=number,
        steps=PYTHIA,
        text=TEXT,
        details=details(options("pythia-tiny-seed1234"), TINY, last_step=PYTHIA[-1]),
        training=(
            Fact("Iteration", f"{number:,}", "checkpoint"),
            Fact("Tokens seen", f"{number * TOKENS:,}", "iteration x tokens in a step"),
            Fact("Learning rate", decimal(min(number / 1430 * 1e-3, 1e-4 if number > 115_000 else 1e-3)), "checkpoint"),
            Fact("Loss scale", "8,192", "checkpoint"),
            Fact("Updates skipped so far", "0", "checkpoint; the loss scale had overflowed"),
        ),
        tokens=number * TOKENS,
        has_tokenizer=True,
        files=tuple(
            FileRecord(path, size, digest(path, number))
            for path, size in (("config.json", 902), ("model.safetensors", 32_472), ("tokenizer.json", 6_614))
        ),
        gates=tuple(replace(gate, detail=gate.detail.format(step=f"{number:,}")) for gate in GATES),
        source=SOURCE,
        source_commit=digest("commit", number)[:40],
        source_files=("mp_rank_00_model_states.pt",),
        converter="publish 0.1.0",
        overrides=(DEVIATION,),
    )
    return replace(facts, **changes)
