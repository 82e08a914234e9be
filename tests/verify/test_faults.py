"""Planted faults: the gates that are there for a fault catch it, and name the tensor or the key."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publish.convert.plan import ConversionPlan
from publish.errors import GateError
from publish.neox.state import TrainingState
from publish.records.gates import FAILED, PASSED, SKIPPED, require
from publish.verify.gates import (
    Evidence,
    run_gates,
    verify_bits,
    verify_completeness,
    verify_file_length,
    verify_finite,
    verify_identity,
)
from publish.verify.logits import verify_logits
from tests.conftest import shared
from tests.convert.rawmodel import LLAMA, MISTRAL, NEOX, Case, config_of, raw_of
from tests.verify.faults import Spoiler, every_gate, evidence_of, raw_case
from tests.verify.test_forward import CASES

DENSE = "gpt_neox.layers.{}.attention.dense.weight"
QKV = "gpt_neox.layers.0.attention.query_key_value.weight"


def made(case: Case, out: Path, **options: Any) -> Evidence:
    return evidence_of(raw_of(case)[1], config_of(case), out, **options)


@pytest.fixture
def pythia(tmp_path: Path) -> Evidence:
    return evidence_of(*raw_case(shared("neox/pythia_seq/global_step16")), tmp_path / "out")


@pytest.fixture
def small(tmp_path: Path) -> Evidence:
    return made(Case(NEOX), tmp_path / "out")


def failures(evidence: Evidence) -> set[str]:
    """The gates that fail, with the files read again."""
    return {gate.name for gate in every_gate(replace(evidence, counts=None)) if gate.outcome == FAILED}


@pytest.mark.parametrize("case", CASES)
def test_a_true_step_passes_every_gate(case: str, tmp_path: Path) -> None:
    evidence = evidence_of(*raw_case(shared(f"neox/{case}/global_step16")), tmp_path / "out")
    results = every_gate(evidence)
    assert [(gate.name, gate.detail) for gate in results if gate.outcome != PASSED] == []
    assert verify_finite(evidence.folder) == verify_finite(evidence.folder, evidence.counts)
    figures = results[-1].figures
    assert figures["max_abs_diff"] <= figures["bound"] <= 2e-5
    assert figures["argmax_agreement"] == 1
    assert ("deviation" in figures) == (case.startswith("legacy") or case == "pythia_pipe_tp2")
    require(results, case)


@pytest.mark.parametrize("run", ["pythia-tiny-seed1234", "pythia-tiny-seed1"])
@pytest.mark.parametrize("step", [0, 1, 512, 143000])
def test_steps_of_the_suite_pass(run: str, step: int, tmp_path: Path) -> None:
    evidence = evidence_of(*raw_case(shared(f"suite/{run}/global_step{step}")), tmp_path / "out", step)
    assert {gate.outcome for gate in every_gate(replace(evidence, vocabulary=90))} == {PASSED}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    "case",
    [
        Case(NEOX),
        Case(replace(NEOX, parallel_residual=False), dtype="bfloat16"),
        Case(replace(NEOX, shared_norm=True, tied=True), legacy_mlp=True),
        Case(replace(LLAMA, heads=8, kv_heads=4), attention_biases=False),
        Case(MISTRAL, attention_biases=False, dtype="float32"),
    ],
    ids=["parallel", "serial-bf16", "shared-tied-legacy", "grouped", "window-fp32"],
)
def test_split_models_pass(case: Case, ranks: int, tmp_path: Path) -> None:
    results = every_gate(made(replace(case, tensor_parallel=ranks), tmp_path / "out"))
    assert [gate.detail for gate in results if gate.outcome == FAILED] == []


def test_a_cast_passes_and_its_deviation_is_measured(tmp_path: Path) -> None:
    results = every_gate(made(Case(NEOX), tmp_path / "out", dtype="bfloat16"))
    assert [gate.detail for gate in results if gate.outcome == FAILED] == []
    assert results[-1].figures["deviation"] > 100 * results[-1].figures["bound"]


def flip(bit: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 5] ^= np.uint16(1 << bit)
        return array

    return change


CONTENT: dict[str, tuple[Callable[[Spoiler], None], set[str]]] = {
    "transposed square": (lambda s: s.change(DENSE.format(0), lambda array: array.T), {"bits", "logits"}),
    "two layers swapped": (lambda s: s.swap(DENSE.format(0), DENSE.format(1)), {"bits", "logits"}),
    "norms swapped": (
        lambda s: s.swap(
            "gpt_neox.layers.0.input_layernorm.weight", "gpt_neox.layers.0.post_attention_layernorm.weight"
        ),
        {"bits", "logits"},
    ),
    "embeddings swapped": (lambda s: s.swap("gpt_neox.embed_in.weight", "embed_out.weight"), {"bits", "logits"}),
    "heads de-interleaved": (
        lambda s: s.change(QKV, lambda array: array.reshape(4, 3, -1, 64).transpose(1, 0, 2, 3)),
        {"bits", "logits"},
    ),
    "lowest bit flipped": (lambda s: s.change(QKV, flip(0)), {"bits"}),
    "exponent bit flipped": (lambda s: s.change(QKV, flip(13)), {"bits", "logits"}),
    "NaN": (lambda s: s.change(QKV, lambda array: array | np.uint16(0x7E00)), {"bits", "finite", "logits"}),
}


@pytest.mark.parametrize("fault", CONTENT)
def test_wrong_weights(fault: str, pythia: Evidence) -> None:
    plant, expected = CONTENT[fault]
    plant(Spoiler(pythia.folder))
    assert failures(pythia) == expected


def test_the_finite_gate_names_the_tensor_and_counts(pythia: Evidence) -> None:
    def plant(array: np.ndarray) -> np.ndarray:
        array[0, :3] = (0x7C00, 0xFC00, 0x7C01)
        return array

    Spoiler(pythia.folder).change(QKV, plant)
    result = verify_finite(pythia.folder)
    assert f"{QKV} (1 NaN, 2 infinite)" in result.detail
    assert (result.figures["nans"], result.figures["infinities"], result.figures["tensors_affected"]) == (1, 2, 1)


CONFIG: dict[str, tuple[str, dict[str, Any]]] = {
    "residual": ("pythia_seq", {"use_parallel_residual": False}),
    "serial residual": ("serial_seq", {"use_parallel_residual": True}),
    "erf gelu": ("pythia_seq", {"hidden_act": "gelu"}),
    "gelu for relu": ("neox_variants_relu", {"hidden_act": "gelu"}),
    "norm epsilon": ("pythia_seq", {"layer_norm_eps": 1e-4}),
    "rotary fraction": (
        "pythia_seq",
        {
            "rotary_pct": 0.5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5},
        },
    ),
    "rotary base": (
        "pythia_seq",
        {
            "rotary_emb_base": 5000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000, "partial_rotary_factor": 0.25},
        },
    ),
    "window off by one": ("mistral_gqa_pipe", {"sliding_window": 8}),
    "no window": ("mistral_gqa_pipe", {"sliding_window": None}),
    "rms epsilon": ("llama_gqa_seq", {"rms_norm_eps": 1e-3}),
}


@pytest.mark.parametrize("fault", CONFIG)
def test_a_wrong_config(fault: str, tmp_path: Path) -> None:
    case, changes = CONFIG[fault]
    evidence = evidence_of(*raw_case(shared(f"neox/{case}/global_step16")), tmp_path / "out")
    assert failures(evidence) == set()
    if fault == "window off by one":
        changes = {"sliding_window": evidence.plan.network.sliding_window}
    Spoiler(evidence.folder).config(changes)
    assert failures(evidence) == {"logits"}


def test_a_config_that_cannot_compute(pythia: Evidence) -> None:
    rope = {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 1.5}
    Spoiler(pythia.folder).config({"rope_parameters": rope})
    assert "cannot compute" in every_gate(pythia)[-1].detail


def test_an_untied_model_with_a_tied_config(tmp_path: Path) -> None:
    evidence = evidence_of(*raw_case(shared("neox/pythia_seq/global_step16")), tmp_path / "out")
    Spoiler(evidence.folder).config({"tie_word_embeddings": True})
    results = {gate.name: gate for gate in every_gate(evidence)}
    assert "unexpected: embed_out.weight" in results["strict-load"].detail
    assert results["logits"].outcome == SKIPPED


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "shape": (lambda e: e[QKV].update(shape=[48, 17]), "48, 17"),
    "dtype": (lambda e: e[QKV].update(dtype="F32"), "F32"),
    "unknown dtype": (lambda e: e[QKV].update(dtype="F12"), "unsupported dtype F12"),
    "dtype of no weights": (lambda e: e[QKV].update(dtype="I16"), "int16, not one of float16, bfloat16, float32"),
    "offsets swapped": (lambda e: e[QKV].update(data_offsets=e[QKV]["data_offsets"][::-1]), "ends before it begins"),
    "gap": (lambda e: e.pop(QKV), "leaves a gap"),
    "overlap": (lambda e: e.update(other=e[QKV]), "overlaps"),
    "beyond the end": (lambda e: e.update(z={"dtype": "F16", "shape": [1], "data_offsets": [10**6, 10**6 + 2]}), "gap"),
    "negative": (lambda e: e[QKV].update(data_offsets=[-2, 1534]), "does not describe a tensor"),
    "no metadata": (lambda e: e.pop("__metadata__"), "format: pt"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_wrong_header(fault: str, small: Evidence) -> None:
    plant, said = HEADERS[fault]
    Spoiler(small.folder).header(plant)
    result = verify_file_length(small.folder, small.written.files)
    assert result.outcome == FAILED
    assert said in result.detail
    assert failures(small) == {"file-length", "completeness", "finite", "bits", "strict-load"}


def test_the_last_tensor_left_out_with_its_bytes(small: Evidence) -> None:
    path, left_out = small.folder / "model.safetensors", {}
    Spoiler(small.folder).header(lambda entries: left_out.update(entries.popitem()[1]))
    start, end = left_out["data_offsets"]
    path.write_bytes(path.read_bytes()[: -(end - start)])
    assert failures(small) == {"file-length", "completeness", "bits", "strict-load"}
    assert "was planned but not written" in verify_completeness(small.checkpoint, small.plan, small.folder).detail


@pytest.mark.parametrize("cut", [1, 2, 5000, -1, -9])
def test_a_truncated_file(cut: int, small: Evidence) -> None:
    path = small.folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    assert {"file-length", "completeness", "bits", "strict-load"} <= failures(small)


@pytest.mark.parametrize("length", [0, 1, 2**63, 10**9])
def test_a_wrong_header_length(length: int, small: Evidence) -> None:
    path = small.folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert "a header of" in verify_file_length(small.folder, small.written.files).detail


def test_a_missing_or_wrong_index(tmp_path: Path) -> None:
    evidence = made(Case(NEOX), tmp_path / "out", max_file_bytes=4000)
    assert failures(evidence) == set()
    index = evidence.folder / "model.safetensors.index.json"
    text = index.read_text()
    index.write_text(text.replace("model-00001", "model-00002", 1))
    assert "the index has" in verify_bits(evidence.folder, evidence.written.tensors).detail
    index.write_text(text.replace("model-00001", "../model-00001", 1))
    assert (
        "../model-00001-of-00003.safetensors is missing"
        in verify_bits(evidence.folder, evidence.written.tensors).detail
    )
    index.unlink()
    assert "the index is missing" in verify_bits(evidence.folder, evidence.written.tensors).detail


def broken(plan: ConversionPlan, name: str, **changes: Any) -> ConversionPlan:
    recipes = tuple(replace(recipe, **changes) if recipe.name == name else recipe for recipe in plan.recipes)
    return replace(plan, recipes=recipes)


def test_an_incomplete_plan(tmp_path: Path) -> None:
    evidence = made(Case(NEOX, tensor_parallel=2), tmp_path / "out")
    check = lambda plan: verify_completeness(evidence.checkpoint, plan, evidence.folder)  # noqa: E731
    recipe = next(recipe for recipe in evidence.plan.recipes if recipe.name == QKV)
    assert check(evidence.plan).outcome == PASSED
    result = check(broken(evidence.plan, QKV, slices=recipe.slices[1:]))
    assert "layers.0.attention.query_key_value.weight of rank 0: rows from 0 on are not used" in result.detail
    half = replace(recipe.slices[0], source_rows=(0, 10))
    result = check(broken(evidence.plan, QKV, slices=(half, *recipe.slices[1:])))
    assert "rows from 10 on" in result.detail
    assert "its slices hold" in result.detail
    result = check(replace(evidence.plan, recipes=evidence.plan.recipes[1:]))
    assert "embedding.weight of rank 0" in result.detail


def test_a_wrong_step_and_wrong_sizes(small: Evidence) -> None:
    def judged(step: int | None = 16, **state: Any) -> Any:
        checkpoint = replace(small.checkpoint, state=TrainingState(**state))
        return verify_identity(checkpoint, small.config, step)

    assert judged(iteration=16, args={"num_layers": 2}).outcome == PASSED
    wrong = judged(iteration=17)
    assert (wrong.outcome, wrong.figures["iteration"]) == (FAILED, 17)
    assert "iteration 17, not 16" in wrong.detail
    sizes = judged(iteration=16, args={"num_layers": 3, "hidden_size": 16, "padded_vocab_size": 128})
    assert sizes.outcome == FAILED
    assert "num_layers is 3 in the checkpoint but 2 in the config" in sizes.detail
    assert "padded_vocab_size" in sizes.detail
    silent = judged()
    assert (silent.outcome, silent.figures["args_compared"]) == (SKIPPED, 0)
    assert "no mp_rank file" in silent.detail
    assert judged(args={"num_layers": 4}).outcome == FAILED
    nowhere = judged(None, iteration=16)
    assert (nowhere.outcome, nowhere.detail) == (SKIPPED, "the location names no step")


def test_stored_frequencies_that_contradict_the_config(tmp_path: Path) -> None:
    evidence = evidence_of(*raw_case(shared("neox/legacy_pythia_seq/global_step16")), tmp_path / "out")
    other = replace(evidence.plan.network, rotary_base=20000)
    result = verify_logits(evidence.checkpoint, replace(evidence.plan, network=other), evidence.folder)
    assert result.outcome == FAILED
    assert "layers.0.attention.rotary_emb.inv_freq does not match" in result.detail


def test_require_names_every_gate_that_failed(small: Evidence) -> None:
    Spoiler(small.folder).change(QKV, flip(0))
    with pytest.raises(GateError, match=r"bits: .*query_key_value.* has digest .*, the source has") as caught:
        require(run_gates(small, logits=False, why_skipped=""), small.folder)
    assert caught.value.exit_code == 1
