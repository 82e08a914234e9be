"""The gate of validation logits: those that GPT-NeoX stored in a checkpoint, in half precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from publish.records.gates import Gate
from publish.release.conversion import Conversion
from tests.convert.rawfiles import write
from tests.convert.rawmodel import LLAMA, NEOX, Case
from tests.convert.test_layouts import converted

CASES = {
    "neox": Case(NEOX),
    "neox bf16 TP 2": Case(NEOX, dtype="bfloat16", tensor_parallel=2),
    "llama": Case(replace(LLAMA, heads=4), attention_biases=False),
}


def stored(folder: Path, dtype: torch.dtype, vocabulary: int) -> torch.Tensor:
    """The model's logits of the tokens 0, 1, 2, ..., computed in half precision."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(torch.arange(24)[None]).logits[0, :, :vocabulary].clone()


def add(step: Path, logits: torch.Tensor) -> None:
    file = step / "mp_rank_00_model_states.pt"
    torch.save({**torch.load(file, weights_only=True), "checkpoint_validation_logits": logits}, file)


def found(done: Conversion) -> Gate | None:
    return next((gate for gate in done.gates if gate.name == "validation-logits"), None)


@pytest.mark.parametrize("name", CASES)
def test_logits_stored_in_the_checkpoint_are_compared(name: str, tmp_path: Path) -> None:
    case, step = CASES[name], tmp_path / "global_step16"
    write(step, case, stages=1)
    first = converted(step, tmp_path / "first")
    assert found(first) is None
    mine = case.vocabulary // case.tensor_parallel  # rank 0 holds its own part of the vocabulary
    logits = stored(tmp_path / "first", getattr(torch, case.dtype), mine)
    add(step, logits)
    done = converted(step, tmp_path / "second")
    gate = found(done)
    assert gate is not None
    assert gate.outcome == "passed", gate
    assert not done.failed


def test_logits_of_another_model_fail(tmp_path: Path) -> None:
    step, other = tmp_path / "global_step16", tmp_path / "other" / "global_step16"
    write(step, Case(NEOX), stages=1)
    write(other, Case(NEOX, seed=1), stages=1)
    converted(other, tmp_path / "out")
    add(step, stored(tmp_path / "out", torch.float16, 24))
    done = converted(step, tmp_path / "wrong")
    gate = found(done)
    assert gate is not None
    assert gate.outcome == "failed"
    assert done.failed
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(4, 99), torch.full((8, 24), torch.nan)])
def test_invalid_stored_logits_fail(logits: torch.Tensor, tmp_path: Path) -> None:
    step = tmp_path / "global_step16"
    write(step, Case(NEOX), stages=1)
    add(step, logits)
    gate = found(converted(step, tmp_path / "out"))
    assert gate is not None
    assert gate.outcome == "failed"
