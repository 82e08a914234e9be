"""Hugging Face checkpoints: the four layouts, in a folder and on a Hub, and files that do not belong together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, constants

from publish.errors import CheckpointError
from publish.hf.checkpoint import HfCheckpoint
from publish.rehearsal.server import RehearsalHub
from publish.sources.files import LocalFiles
from tests.compare.models import Model, report
from tests.hf.layouts import LAYOUTS, write

MODEL = Model(layers=2, hidden=64, vocabulary=2048)
TENSORS = MODEL.draw(1)
MATRIX = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"


def opened(folder: Path) -> HfCheckpoint:
    return HfCheckpoint.open(LocalFiles(folder))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_tensors(layout: str, tmp_path: Path) -> None:
    checkpoint = opened(write(tmp_path / "model", TENSORS, layout))
    assert checkpoint.tensors.keys() == TENSORS.keys()
    assert checkpoint.files.bytes_read < 150_000  # of 720,000: headers, pickles, an index
    for name, array in TENSORS.items():
        tensor = checkpoint.tensors[name]
        assert (tensor.dtype, tensor.shape) == ("float16", array.shape)
        assert b"".join(map(bytes, checkpoint.chunks(tensor))) == array.tobytes()
    np.testing.assert_array_equal(checkpoint.read(checkpoint.tensors[MATRIX], 5, 7), TENSORS[MATRIX][5:12])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_compared_in_a_folder_and_on_a_hub(
    layout: str, hub: RehearsalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    folder = write(tmp_path / "model", TENSORS, layout)
    other = write(tmp_path / "other", MODEL.draw(2), "safetensors")
    repo = f"alice/{layout.replace(' ', '-')}"
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert report(repo, folder).verdict.name == "identical"
    assert report(f"{repo}@main", other).verdict.name == "same-init-different-rng"


def test_safetensors_are_preferred_and_other_files_are_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, "safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    (folder / "optimizer.pt").write_bytes(b"not read")  # of transformers' Trainer
    (folder / "original").mkdir()
    (folder / "original" / "model.safetensors").write_bytes(b"not read")
    assert opened(folder).tensors.keys() == TENSORS.keys()


@pytest.mark.parametrize("layout", ["sharded safetensors", "sharded bin"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_missing_shard_is_named(layout: str, indexed: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, layout)
    single = LAYOUTS[layout][1]
    missing = f"{single.split('.')[0]}-00002-of-00002.{single.split('.')[1]}"
    (folder / missing).unlink()
    if not indexed:
        (folder / f"{single}.index.json").unlink()
    with pytest.raises(CheckpointError, match=f"{missing} is missing"):
        opened(folder)


def test_shards_without_an_index_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, "sharded safetensors")
    (folder / "model.safetensors.index.json").unlink()
    assert opened(folder).tensors.keys() == TENSORS.keys()


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": [1]}', "{", "[" * 10**5])
def test_a_broken_index_is_named(content: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, "sharded safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        opened(folder)
    assert caught.value.where.endswith("model.safetensors.index.json")


def test_a_surplus_shard_and_a_tensor_in_two_files_are_errors(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, "sharded safetensors")
    first = (folder / "model-00001-of-00002.safetensors").read_bytes()
    (folder / "model-00003-of-00002.safetensors").write_bytes(first)
    with pytest.raises(CheckpointError, match=r"model-00003-of-00002\.safetensors does not belong to the other shards"):
        opened(folder)
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["more"] = "model-00003-of-00002.safetensors"
    index.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"is also in model-00001-of-00002\.safetensors"):
        opened(folder)


def test_config_and_step_come_from_their_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", TENSORS, "safetensors")
    assert (opened(folder).config, opened(folder).step) == ({}, None)
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    (folder / "publish.json").write_text('{"step": 512}')
    assert (opened(folder).config["model_type"], opened(folder).step) == ("gpt_neox", 512)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        _ = opened(folder).config
