"""Records to write cards of: a real config, with figures as its run would give them. Digests are made up."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from publish.cards.facts import StepFacts, SuiteFacts
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.records.manifest import (
    ComparedLayerType,
    ComparisonRecord,
    ConfigOverride,
    Converter,
    Explanation,
    Manifest,
    Preceding,
    RngState,
    Source,
    SourceFile,
    Tensors,
    Training,
    note,
)
from publish.records.run import RunFacts, Sizes, config_facts
from publish.release_file import CardMetadata, ExpectedEqual, Override, Release
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
    architecture="gpt_neox",
    dtype="float16",
    parameters=14_784,
    embedding_parameters=8_192,
    vocabulary=256,
    tokens_per_step=TOKENS,
    data_parallel=1,
)
RUN = RunFacts(config_facts(options("pythia-tiny-seed1234")), TINY)
CARD = CardMetadata(
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
RELEASE = Release(
    source=SOURCE,
    target=REPO,
    card=CARD,
    expect=(ExpectedEqual((0, 1), "the learning rate is 0 on the first iteration"),),
    overrides=(Override("hidden_act", "gelu", "consistency with the published suite"),),
)
GATES = (
    Gate("identity", "passed", "iteration {step}; 6 sizes equal the config's"),
    Gate("file-length", "passed", "1 weight file, 32,472 bytes as claimed"),
    Gate("completeness", "passed", "30 source tensors made 28, 2 dropped"),
    Gate("finite", "passed", "all 14,784 elements are finite"),
    Gate("bits", "passed", "28 tensors, 29,568 bytes equal the source's"),
    Gate("strict-load", "passed", "GPTNeoXForCausalLM loads all 28 tensors, none missing or left over"),
)
LOGITS = Gate("logits", "passed", "64 positions differ by at most 3.1e-7", {"override_effect": 1.2e-3})
NO_LOGITS = Gate("logits", "skipped", "same plan and config as the first step")
_STDS = (
    ("embedding", 4096, 0.157544, 0.156139, 0.158114),
    ("QKV", 1536, 0.159287, 0.157398, 0.158114),
    ("attention dense", 512, 0.241339, 0.250352, 0.25),
    ("MLP up", 2048, 0.156921, 0.158827, 0.158114),
    ("MLP down", 2048, 0.247615, 0.246141, 0.25),
    ("unembedding", 4096, 0.158816, 0.157002, 0.158114),
)
COMPARISON = ComparisonRecord(
    location="EleutherAI/pythia-tiny-seed1@step0",
    verdict="same-init-different-rng",
    tensors=28,
    bitwise_equal=18,
    equal_up_to_zero_sign=0,
    different=10,
    only_left=0,
    only_right=0,
    shape_mismatch=0,
    limit=4.21395,
    layer_types=tuple(
        ComparedLayerType(name, elements, left, right, left / right, left / right * elements**-0.5, expected)
        for name, elements, left, right, expected in _STDS
    ),
    reasons=(
        note("constants-equal-neox", count=18, tensors=28, layers=2),
        note("uncorrelated", count=10, z=1.9, correlation=0.0297, tensor="embed_out.weight", limit=4.21395),
        note("stds-agree", z=1.2, ratio=0.9641, tensor="gpt_neox.layers.1.attention.dense.weight", limit=4.21395),
        note("seeds-differ", left=1234, right=1),
    ),
)
EXPLANATION = Explanation(
    outcome="reproduced",
    rng_state=RngState("cpu-mt19937", 1234, (3952,), Preceding(14_336, constructions=1)),
    layout="sequential",
    tensors=10,
    values=14_336,
    bit_equal=14_336,
    within_one_ulp=14_336,
    stored_state="equal",
)


def manifest(number: int, **changes: Any) -> Manifest:
    """The manifest of one step; step 1 has the weights of step 0."""
    ends = number in (PYTHIA[0], PYTHIA[-1])
    gates = (*(replace(gate, detail=gate.detail.format(step=f"{number:,}")) for gate in GATES), LOGITS)
    weights = FileRecord("model.safetensors", 32_472, digest("weights", max(number, 1)))
    made = Manifest(
        step=number,
        branch=f"step{number}",
        tokens=number * TOKENS,
        source=Source(SOURCE, digest("commit", number)[:40], (SourceFile("mp_rank_00_model_states.pt", 222_208),)),
        plan=digest("plan"),
        converter=Converter("publish", "0.1.0"),
        files=(
            FileRecord("README.md", 4_000, digest("card", number)),
            FileRecord("config.json", 902, digest("config.json", number)),
            weights,
            FileRecord("tokenizer.json", 6_614, digest("tokenizer.json", number)),
        ),
        dtype="float16",
        source_dtype="float16",
        architecture="GPTNeoXForCausalLM",
        parameters=14_784,
        tensors=Tensors(28, digest("tensors", number)),
        gates=gates if ends else (*gates[:-1], NO_LOGITS),
        training=Training(
            iteration=number,
            learning_rate=min(number / 1430 * 1e-3, 1e-4 if number > 115_000 else 1e-3),
            loss_scale=8192.0,
            skipped_steps=0,
        ),
        tokenizer=digest("tokenizer"),
        overrides=(ConfigOverride("hidden_act", "gelu", "gelu_fast"),),
    )
    return replace(made, **changes)


def checkpoints() -> tuple[Manifest, ...]:
    """The manifests of all steps; the first one is compared and explained."""
    first, *others = map(manifest, PYTHIA)
    return (replace(first, comparisons=(COMPARISON,), explanation=EXPLANATION), *others)


def suite(**changes: Any) -> SuiteFacts:
    """The suite's card of the tiny run."""
    release = replace(RELEASE, card=replace(CARD, errata=(ERRATUM,)))
    return replace(SuiteFacts(release, RUN, checkpoints()), **changes)


def step(number: int = 1000, *, release: Release = RELEASE, run: RunFacts = RUN, **changes: Any) -> StepFacts:
    """A step's card of the tiny run; ``changes`` are of its manifest."""
    return StepFacts(release, run, PYTHIA, manifest(number, **changes))
