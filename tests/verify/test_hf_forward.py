"""The memory-bounded forward pass of transformers against from_pretrained, bit for bit."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from publish.convert.folder import write_folder
from publish.convert.plan import make_plan
from publish.errors import GateError
from publish.records.gates import FAILED, PASSED
from publish.verify import hf_model
from publish.verify.hf_model import hf_logits, verify_strict_load
from publish.verify.logits import probe_tokens
from publish.verify.weights import WeightFolder
from tests.conftest import shared
from tests.convert.rawmodel import LLAMA, NEOX, Case, config_of, raw_of
from tests.verify.faults import Spoiler, every_gate, evidence_of, raw_case
from tests.verify.test_forward import CASES

TOKENS = probe_tokens(24, 32)


def from_pretrained(folder: Path, tokens: np.ndarray) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits


def small(case: Case, out: Path, **options: int) -> Path:
    raw = raw_of(case)[1]
    write_folder(raw, make_plan(raw, config_of(case), **options), None, out)
    return out


@pytest.mark.parametrize("case", CASES)
def test_equal_to_from_pretrained_bit_for_bit(case: str, tmp_path: Path) -> None:
    evidence = evidence_of(*raw_case(shared(f"neox/{case}") / "global_step16"), tmp_path / "out")
    tokens = probe_tokens(evidence.plan.vocabulary, evidence.plan.network.context)
    assert torch.equal(hf_logits(evidence.folder, tokens), from_pretrained(evidence.folder, tokens))
    assert verify_strict_load(evidence.folder).outcome == PASSED


@pytest.mark.parametrize("network", [NEOX, LLAMA, replace(NEOX, tied=True)], ids=["neox", "llama", "tied"])
def test_files_in_several_parts(network: object, tmp_path: Path) -> None:
    case = Case(network, attention_biases=network is not LLAMA)  # type: ignore[arg-type]
    folder = small(case, tmp_path / "out", max_file_bytes=2000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert verify_strict_load(folder).outcome == PASSED
    assert torch.equal(hf_logits(folder, TOKENS), from_pretrained(folder, TOKENS))


def test_one_model_per_config_and_no_weight_stays_in_memory(tmp_path: Path) -> None:
    folders = [small(Case(NEOX, seed=seed), tmp_path / str(seed)) for seed in (1, 2)]
    assert not torch.equal(hf_logits(folders[0], TOKENS), hf_logits(folders[1], TOKENS))
    configs = [(folder / "config.json").read_bytes() for folder in folders]
    with hf_model.LOGITS_LOCK:
        first, second = (hf_model.meta_model(config, "config.json") for config in configs)
        assert first is second
        assert all(parameter.is_meta for parameter in first.model.parameters())
        assert not any(buffer.is_meta for buffer in first.model.buffers())


def test_a_model_is_usable_after_it_could_not_compute(tmp_path: Path) -> None:
    folder = small(Case(NEOX), tmp_path / "out")
    before, norm = hf_logits(folder, TOKENS), "gpt_neox.layers.1.input_layernorm.weight"
    Spoiler(folder).header(lambda entries: entries[norm].update(shape=[4, 4]))
    with pytest.raises(GateError, match="cannot compute"):
        hf_logits(folder, TOKENS)
    Spoiler(folder).header(lambda entries: entries[norm].update(shape=[16]))
    model = hf_model.meta_model((folder / "config.json").read_bytes(), "config.json").model
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(hf_logits(folder, TOKENS), before)


def test_threads_share_one_spec(tmp_path: Path) -> None:
    names = tuple(WeightFolder.open(folder := small(Case(NEOX), tmp_path / "out")).tensors)
    config = (folder / "config.json").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        specs = list(pool.map(lambda _: hf_model.model_spec(config, names, folder), range(32)))
    assert all(spec is specs[0] for spec in specs)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    folders = [small(Case(NEOX, seed=seed), tmp_path / str(seed)) for seed in range(3)]
    alone = [hf_logits(folder, TOKENS) for folder in folders]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda number: hf_logits(folders[number % 3], TOKENS), range(24)))
    assert all(torch.equal(found, alone[number % 3]) for number, found in enumerate(together))


def test_tensors_that_do_not_load_strictly_are_named(tmp_path: Path) -> None:
    folder = small(Case(NEOX), tmp_path / "out")
    spoiler = Spoiler(folder)
    spoiler.header(lambda entries: entries.update({"embed_out.weights": entries.pop("embed_out.weight")}))
    result = verify_strict_load(folder)
    assert result.outcome == FAILED
    assert "missing: lm_head.weight; unexpected: embed_out.weights" in result.detail
    assert (result.figures["missing"], result.figures["unexpected"]) == (1, 1)
    spoiler.header(lambda entries: entries.update({"embed_out.weight": entries.pop("embed_out.weights")}))
    spoiler.config({"intermediate_size": 16})
    result = verify_strict_load(folder)
    assert result.figures["mismatched"] == 6
    assert "gpt_neox.layers.0.mlp.dense_4h_to_h.weight has shape [16, 32], expected [16, 16]" in result.detail


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"model_type": "gpt_neox", "hidden_size": "many"}', '{"model_type": "no-such-model"}']
)
def test_a_config_that_transformers_refuses_fails_the_gate(text: str, tmp_path: Path) -> None:
    folder = small(Case(NEOX), tmp_path / "out")
    (folder / "config.json").write_text(text)
    result = verify_strict_load(folder)
    assert result.outcome == FAILED
    assert "cannot build" in result.detail


def test_a_missing_config(tmp_path: Path) -> None:
    folder = small(Case(NEOX), tmp_path / "out")
    (folder / "config.json").unlink()
    assert "No such file" in verify_strict_load(folder).detail


def test_gates_are_valid_json(tmp_path: Path) -> None:
    case = Case(NEOX)
    evidence = evidence_of(raw_of(case)[1], config_of(case), tmp_path / "out")
    documents = [asdict(gate) for gate in every_gate(evidence)]
    assert json.loads(json.dumps(documents, allow_nan=False)) == documents
