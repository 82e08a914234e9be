"""Models in Hugging Face format, in a folder or on a Hub, are cut back into the shards that GPT-NeoX drew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from publish.convert.folder import write_folder
from publish.convert.plan import make_plan
from publish.errors import CheckpointError, ConfigError, ConversionError, PublishError
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.sources.files import LocalFiles
from tests.explain.neoxfiles import Drawn, Model, on_cpu, on_gpu
from tests.explain.test_explain import Answer, ask


def converted(drawn: Drawn, folder: Path, dtype: str | None = None) -> Path:
    raw = drawn.write(folder / "raw")
    checkpoint = RawCheckpoint.open(LocalFiles(raw))
    write_folder(checkpoint, make_plan(checkpoint, read_config(checkpoint), dtype), None, folder / "hf")
    return folder / "hf"


def assert_reproduced(answer: Answer, seed: int, ranks: int) -> None:
    found = answer.explanation
    assert found.outcome == "reproduced", answer.reasons
    assert found.rng_state is not None
    assert (found.rng_state.seed, answer.tensor_parallel, found.stored_state) == (
        seed,
        ranks,
        "absent",
    )
    assert found.bit_equal == found.values


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_gpt_neox(tmp_path: Path, ranks: int, tied: bool, sequential: bool) -> None:
    model = Model(tensor_parallel=ranks, tied=tied, sequential=sequential, vocabulary=128 * ranks)
    seeds = None if sequential and not tied else [1234]
    assert_reproduced(ask(converted(on_cpu(model), tmp_path), seeds=seeds), 1234, ranks)


@pytest.mark.parametrize("kind", ["llama-2023", "llama-2026"])
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("ranks", [1, 2])
def test_llama(tmp_path: Path, kind: str, kv_heads: int, ranks: int) -> None:
    model = Model(kind=kind, kv_heads=kv_heads, tensor_parallel=ranks, vocabulary=250, seed=17)
    answer = ask(converted(on_cpu(model), tmp_path), seeds=[17])
    assert_reproduced(answer, 17, ranks)
    names = [result.name for result in answer.results]
    attention = [f"model.layers.0.self_attn.{one}_proj.weight" for one in "qkv"]
    assert " + ".join(attention) in names


def test_torch_files_are_explained_as_safetensors_are(tmp_path: Path) -> None:
    folder = converted(on_cpu(Model()), tmp_path)
    checkpoint = HfCheckpoint.open(LocalFiles(folder))
    tensors = {
        name: torch.from_numpy(checkpoint.read(tensor, 0, tensor.shape[0]).copy())
        for name, tensor in checkpoint.tensors.items()
    }
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert_reproduced(ask(folder), 1234, 1)


def test_a_gpus_model_on_two_ranks(tmp_path: Path) -> None:
    model = Model(tensor_parallel=2, vocabulary=512, hidden=64)
    answer = ask(converted(on_gpu(model, 2048, 8), tmp_path), seeds=range(1200, 1300))
    found = answer.explanation
    assert (found.outcome, answer.tensor_parallel) == ("reproduced", 2)
    assert found.rng_state is not None
    assert (found.rng_state.threads, found.rng_state.position) == (2048, 8)


def test_pipeline_stages_are_found_without_a_config(tmp_path: Path) -> None:
    from tests.explain.neoxfiles import on_cpu_in_stages

    model = Model(layers=3, sequential=False, stages=2)
    assert_reproduced(ask(converted(on_cpu_in_stages(model, (0, 5)), tmp_path), seeds=[1234]), 1234, 1)


def test_weights_that_were_upcast_are_what_was_drawn_in_half_precision(tmp_path: Path) -> None:
    answer = ask(converted(on_cpu(Model()), tmp_path, "float32"), seeds=[1234])
    assert_reproduced(answer, 1234, 1)


def test_a_standard_deviation_of_no_method_is_reported(tmp_path: Path) -> None:
    drawn = on_cpu(Model())
    for tensor in drawn.ranks[0].values():
        tensor *= 1.5
    answer = ask(converted(drawn, tmp_path), seeds=[1234])
    assert answer.explanation.outcome == "not-reproduced"
    assert "no init method of GPT-NeoX has the standard deviations measured (embedding.weight 0.1" in answer.reasons[0]


def test_a_wrong_config_or_a_broken_file_is_an_error(tmp_path: Path) -> None:
    folder = converted(on_cpu(Model()), tmp_path)
    config, weights = folder / "config.json", folder / "model.safetensors"
    whole, sizes = weights.read_bytes(), json.loads(config.read_text())
    config.write_text(json.dumps(sizes | {"num_hidden_layers": 3}))
    with pytest.raises(ConversionError, match=r"layers\.2\."):
        ask(folder)
    for impossible in ({"num_hidden_layers": 2**30}, {"num_attention_heads": 2**30}, {"num_attention_heads": 3}):
        config.write_text(json.dumps(sizes | impossible))
        with pytest.raises(ConfigError, match="do not fit"):
            ask(folder)
    config.write_text(json.dumps(sizes | {"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="gpt2"):
        ask(folder)
    config.write_text(json.dumps(sizes | {"vocab_size": "many"}))
    with pytest.raises(ConfigError, match="vocab_size"):
        ask(folder)
    config.write_text(json.dumps(sizes))
    for broken in (whole[:100], b"\xff" * 64, whole[:-10], whole.replace(b'"F16"', b'"F32"', 1)):
        weights.write_bytes(broken)
        with pytest.raises(CheckpointError):
            ask(folder)


def test_mutated_files_end_in_an_answer_or_an_error_that_names_them(tmp_path: Path) -> None:
    """A few hundred bytes into a header or anywhere: no crash, and no warning (they are errors here)."""
    whole = converted(on_cpu(Model()), tmp_path)
    path = whole / "model.safetensors"
    sound = path.read_bytes()
    random, wheres = np.random.default_rng(0), []
    for number in range(40):
        broken = bytearray(sound)
        at = int(random.integers(0, 600 if number % 2 else len(broken)))
        broken[at : at + 8] = (b"\xff" * 8, b"", random.bytes(3), b"9")[number % 4]
        path.write_bytes(broken)
        wheres.append(outcome_of(whole))
    assert len(wheres) == 40
    assert all(where.startswith(str(whole)) for where in wheres)


def outcome_of(folder: Path) -> str:
    """Where the answer or the error says that it was."""
    try:
        return ask(folder, seeds=[1234]).where
    except PublishError as error:
        return error.where
