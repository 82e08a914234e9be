"""Checkpoints of every layout, written to disk as GPT-NeoX does, converted and verified as publish convert does."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publish.checkpoints import find_checkpoint
from publish.errors import ConfigError
from publish.release.conversion import Conversion, ConvertOptions, convert_one
from publish.sources.runs import parse_location
from tests.convert.rawfiles import SEQUENTIAL, write
from tests.convert.rawmodel import LLAMA, MISTRAL, NEOX, Case, written_arrays
from tests.convert.test_merge import cases

SERIAL = replace(NEOX, parallel_residual=False)
MULTI_QUERY = replace(LLAMA, heads=4, kv_heads=1)
GROUPED = replace(LLAMA, heads=8, kv_heads=4)
NAMED = {
    "pipeline TP 4": (Case(NEOX, tensor_parallel=4), 1, False),
    "sequential TP 2": (Case(SERIAL, tensor_parallel=2), SEQUENTIAL, False),
    "tied pipeline TP 2": (Case(replace(NEOX, tied=True), tensor_parallel=2), 1, False),
    "bf16 pipeline ZeRO": (Case(NEOX, dtype="bfloat16"), 2, True),
    "no attention bias": (Case(NEOX, attention_biases=False), 1, False),
    "MHA llama pipeline, legacy names": (Case(LLAMA, legacy_mlp=True, attention_biases=False), 1, False),
    "GQA TP 2": (Case(GROUPED, tensor_parallel=2, attention_biases=False), SEQUENTIAL, False),
    "multi-query": (Case(MULTI_QUERY, attention_biases=False), 1, False),
    "mistral TP 2 PP 2": (
        Case(replace(MISTRAL, heads=8, kv_heads=4), tensor_parallel=2, attention_biases=False),
        2,
        True,
    ),
    "exact GELU, legacy names": (Case(replace(NEOX, activation="gelu"), legacy_mlp=True), 2, False),
}


def converted(folder: Path, out: Path) -> Conversion:
    source, files = find_checkpoint(parse_location(str(folder)), None)
    try:
        return convert_one(source, files, out, ConvertOptions(tokenizer="none"))
    finally:
        files.close()


@pytest.mark.parametrize("name", NAMED)
def test_converted_bit_for_bit_with_every_gate_passed(name: str, tmp_path: Path) -> None:
    case, stages, zero = NAMED[name]
    model = write(tmp_path / "global_step16", case, stages=stages, zero=zero)
    done = converted(tmp_path / "global_step16", tmp_path / "out")
    assert not done.failed, done.gates
    assert {gate.outcome for gate in done.gates} == {"passed"}
    assert written_arrays(tmp_path / "out") == {tensor: array.tobytes() for tensor, array in model.items()}


@settings(max_examples=25, deadline=None)
@given(case=cases(), stages=st.sampled_from([SEQUENTIAL, 1, 2]))
def test_any_split_on_disk_gives_the_same_model(case: Case, stages: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        step, out = Path(folder) / "global_step16", Path(folder) / "out"
        model = write(step, case, stages=stages)
        assert not converted(step, out).failed
        assert written_arrays(out) == {name: array.tobytes() for name, array in model.items()}


def test_learned_positions_are_refused_by_name(tmp_path: Path) -> None:
    step = tmp_path / "global_step16"
    write(step, Case(NEOX))
    config = step / "configs" / "model.yml"
    config.write_text(config.read_text().replace('"pos-emb": "rotary"', '"pos-emb": "learned"'))
    with pytest.raises(ConfigError, match="pos_emb: 'learned' cannot be converted"):
        converted(step, tmp_path / "out")
    assert not (tmp_path / "out").exists()
