"""The checkpoints that GPT-NeoX itself wrote, against the logits that GPT-NeoX itself computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from publish.convert.folder import write_folder
from publish.convert.plan import ConversionPlan, make_plan
from publish.convert.tokenizer import find_tokenizer
from publish.errors import ConfigError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.sources.files import LocalFiles
from tests.conftest import arrays, shared

REACH = {
    "legacy_llama_pipe": 9e-4,
    "legacy_pythia_pipe_zero1": 5e-6,
    "legacy_pythia_seq": 5e-6,
    "llama_gqa_seq": 5e-6,
    "llama_mha_seq": 5e-6,
    "mistral_gqa_pipe": 5e-6,
    "neox_gptj_tied": 5e-6,
    "neox_variants_relu": 5e-6,
    "pythia_pipe": 5e-6,
    "pythia_pipe_pp2": 5e-6,
    "pythia_pipe_tp2": 5e-6,
    "pythia_pipe_zero1_dp2": 5e-6,
    "pythia_seq": 5e-6,
    "pythia_seq_bf16": 5e-6,
    "serial_pipe_tp2": 5e-6,
    "serial_seq": 5e-6,
    "tied_seq": 5e-6,
}
SUITE = [(run, step) for run in ("pythia-tiny-seed1234", "pythia-tiny-seed1") for step in (0, 1, 512, 1000, 143000)]


def converted(raw_folder: Path, tokenizer: str | None, out: Path) -> ConversionPlan:
    raw = RawCheckpoint.open(LocalFiles(raw_folder))
    config = read_config(raw)
    plan = make_plan(raw, config)
    found = find_tokenizer(tokenizer, config, raw_folder, lambda _repo: {})
    assert found is not None
    write_folder(raw, plan, found, out)
    return plan


def difference(folder: Path, known: Path) -> float:
    """The largest difference of logits, the model loaded strictly, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    numbers = arrays(known)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        logits = model(torch.from_numpy(numbers["tokens"])).logits.numpy()
    expected = numbers["logits_fp32"] if "logits_fp32" in numbers else numbers["logits_fp32_last4"]
    return float(np.abs(logits[:, -expected.shape[1] :] - expected).max())


@pytest.mark.parametrize("case", sorted(REACH))
def test_logits_are_gpt_neoxs(case: str, tmp_path: Path) -> None:
    folder = shared(f"neox/{case}")
    plan = converted(folder / "global_step16", str(shared("neox/tokenizer/small_250.json")), tmp_path / "out")
    assert difference(tmp_path / "out", folder / "logits.npz") <= REACH[case]
    assert bool(plan.notes) == (case in ("legacy_llama_pipe", "mistral_gqa_pipe"))


def test_alibi_is_refused_by_name() -> None:
    raw = RawCheckpoint.open(LocalFiles(shared("neox/neox_alibi/global_step16")))
    with pytest.raises(ConfigError, match="alibi"):
        make_plan(raw, read_config(raw))


@pytest.mark.parametrize(("run", "step"), SUITE)
def test_the_suite(run: str, step: int, tmp_path: Path) -> None:
    folder = shared(f"suite/{run}/global_step{step}")
    converted(folder, None, tmp_path / "out")
    assert difference(tmp_path / "out", shared(f"suite/logits/{run}_step{step}.npz")) <= 5e-5


def test_a_full_size_model(real14m: Path, tmp_path: Path) -> None:
    tokenizer = str(shared("pythia/20B_tokenizer.json"))
    plan = converted(real14m, tokenizer, tmp_path / "out")
    assert (plan.weight_bytes, plan.parameters) == (28_135_424, 14_067_712)
    assert difference(tmp_path / "out", shared("real14m/logits_step0.npz")) <= 1e-4


def test_one_plan_for_all_steps_of_a_run() -> None:
    digests = set()
    for step in (0, 1, 16, 1000, 143000):
        raw = RawCheckpoint.open(LocalFiles(shared(f"suite/pythia-tiny-seed1/global_step{step}")))
        digests.add(make_plan(raw, read_config(raw)).digest)
    assert len(digests) == 1
