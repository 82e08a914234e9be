"""Whatever a location holds: raw or Hugging Face, torch files or safetensors, a folder or a branch on a Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from publish.compare.model import open_model
from publish.compare.report import Report
from publish.convert.folder import write_folder
from publish.convert.plan import make_plan
from publish.errors import PublishError, SourceError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.rehearsal.server import RehearsalHub
from publish.sources.files import LocalFiles
from publish.sources.runs import parse_location
from tests.compare.models import SMALL, Model, report, safetensors, save
from tests.conftest import shared

CASES = (
    *("pythia_seq", "pythia_pipe_tp2", "pythia_seq_bf16", "serial_pipe_tp2", "tied_seq", "legacy_pythia_pipe_zero1"),
    *("legacy_llama_pipe", "llama_gqa_seq", "llama_mha_seq", "mistral_gqa_pipe", "neox_gptj_tied"),
)


def converted(raw: Path, out: Path) -> Path:
    checkpoint = RawCheckpoint.open(LocalFiles(raw))
    write_folder(checkpoint, make_plan(checkpoint, read_config(checkpoint)), None, out)
    return out


@pytest.mark.parametrize("case", CASES)
def test_a_raw_checkpoint_is_what_its_conversion_is(case: str, tmp_path: Path) -> None:
    raw = shared(f"neox/{case}/global_step16")
    found = report(raw, converted(raw, tmp_path / "hf"))
    assert found.verdict.name == "identical"
    assert not {"other"} & {each.name for each in found.tests.types}
    assert not [reason for reason in found.reasons if "differs" in reason]


@pytest.mark.parametrize("case", [case for case in CASES if case != "legacy_llama_pipe"])
def test_every_matrix_has_a_predicted_deviation(case: str) -> None:
    raw = shared(f"neox/{case}/global_step16")
    model = open_model(parse_location(str(raw)))
    matrices = {name for name, tensor in model.tensors.items() if len(tensor.shape) == 2}
    assert model.provenance.expected_std.keys() == matrices
    model.close()


def test_steps_of_a_run_and_what_is_not_there(samples: Path) -> None:
    assert report(samples, samples / "global_step512", 512).verdict.name == "identical"
    with pytest.raises(SourceError, match="a run of 154 checkpoints, and no step is named"):
        open_model(parse_location(str(samples)))
    with pytest.raises(SourceError, match="step 3 is not in this run"):
        open_model(parse_location(str(samples)), 3)
    with pytest.raises(SourceError, match="no folder of this name"):
        open_model(parse_location("nowhere at all"))


def test_the_real_run_from_step_to_step(samples: Path) -> None:
    first = report(samples / "global_step0", samples / "global_step1")
    later = report(samples / "global_step0", samples / "global_step143000")
    assert (first.verdict.name, later.verdict.name) == ("identical", "trained-apart")
    assert later.comparison.count("different") == 28


def test_another_seed_of_the_real_run(samples: Path) -> None:
    other = shared("suite/pythia-tiny-seed1")
    first, last = report(samples, other, 0), report(samples, other, 143000)
    assert (first.verdict.name, last.verdict.name) == ("same-init-different-rng", "trained-apart")
    assert (first.comparison.count("bitwise-equal"), first.comparison.count("different")) == (18, 10)
    for found in (first, last):  # config, stored state and generator seed state it: one sentence
        assert [reason for reason in found.reasons if "seed" in reason] == ["the seeds differ: 1234 and 1"]


def test_nothing_is_predicted_for_trained_weights(samples: Path) -> None:
    other = shared("suite/pythia-tiny-seed1")
    for step, predicted in ((0, True), (143000, False)):
        found = report(samples, other, step)
        assert ("Predicted" in found.markdown()) == predicted
        types = found.document()["layer_types"]
        assert (types[0]["expected_std"] is not None) == predicted
        assert types[0]["left_expected_std"] == types[0]["right_expected_std"] == pytest.approx(0.158, abs=1e-3)
    assert "Predicted" in report(samples / "global_step0", samples / "global_step512").markdown()


def test_torch_files_shards_and_saved_buffers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = SMALL.draw(1)
    whole = save(tmp_path / "whole", {**tensors, "gpt_neox.layers.0.attention.masked_bias": np.zeros(1, "f4")})
    halves = [dict(list(tensors.items())[:9]), dict(list(tensors.items())[9:])]
    sharded, binary = tmp_path / "sharded", tmp_path / "binary"
    sharded.mkdir()
    binary.mkdir()
    for number, half in enumerate(halves, 1):
        (sharded / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors(half))
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, binary / "pytorch_model.bin")
    assert report(whole, sharded).verdict.name == "identical"
    assert report(binary, whole).verdict.name == "identical"


def broken_length(content: bytes) -> bytes:
    return content[:-1]


def broken_header(content: bytes) -> bytes:
    return content.replace(b'"F16"', b'"F61"', 1)


def broken_offsets(content: bytes) -> bytes:
    return content.replace(b"[0, ", b"[2, ", 1)


def broken_json(content: bytes) -> bytes:
    return content[:8] + b"[" + content[9:]


@pytest.mark.parametrize("damage", [broken_length, broken_header, broken_offsets, broken_json, lambda _: b"short"])
def test_a_damaged_file_is_named(damage: object, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", SMALL.draw(1))
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(PublishError) as caught:
        open_model(parse_location(str(folder)))
    assert "model.safetensors" in caught.value.where
    assert caught.value.exit_code == 2


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    many = 10**6
    with RehearsalHub(tmp_path_factory.mktemp("hub"), api_quota=many, resolver_quota=many) as running:
        yield running


def push(hub: RehearsalHub, repo: str, folder: Path, branch: str) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo(repo, exist_ok=True)
    api.create_branch(repo, branch=branch, exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    api.create_commit(repo, operations, commit_message="m", revision=branch)


def test_a_hub_is_read_in_passing(
    hub: RehearsalHub, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By as few requests as there are windows, every weight once, nothing on disk."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    large = save(tmp_path / "hf", Model(layers=3, hidden=256, vocabulary=20_000).draw(1))
    push(hub, "alice/hf", large, "step0")
    push(hub, "alice/raw", samples / "global_step512", "step512")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such folder"))
    hub.reset_stats()
    assert report("alice/hf@step0", large).verdict.name == "identical"
    size = (large / "model.safetensors").stat().st_size
    stats = hub.stats()
    assert stats.bytes_out_by_repo["alice/hf"] < 1.02 * size
    assert sum(stats.requests.values()) < 16
    assert report("hf://alice/hf", "alice/hf@step0", 0).verdict.name == "identical"
    raw: Report = report("alice/raw", samples / "global_step512", 512)
    assert (raw.verdict.name, raw.comparison.left.format) == ("identical", "neox")
    with pytest.raises(PublishError, match="not found"):
        open_model(parse_location("alice/nothing@step0"))
