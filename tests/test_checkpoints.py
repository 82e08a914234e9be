"""What a location holds: a raw or a Hugging Face checkpoint, a run, another format, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from publish.checkpoints import find_checkpoint, open_checkpoint, open_raw_checkpoint
from publish.errors import CheckpointError, SourceError
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.files import LocalFiles
from publish.sources.runs import Location
from tests.compare.models import SMALL
from tests.hf.layouts import write

EXPECTED = "expected model.safetensors, pytorch_model.bin or mp_rank_*_model_states.pt"


def test_raw_and_hugging_face_checkpoints_are_told_apart_by_their_files(samples: Path, tmp_path: Path) -> None:
    hf = write(tmp_path / "hf", SMALL.draw(1), "safetensors")
    assert isinstance(open_checkpoint(LocalFiles(hf)), HfCheckpoint)
    (hf / "optimizer.pt").write_bytes(b"of transformers' Trainer")
    assert isinstance(open_checkpoint(LocalFiles(hf)), HfCheckpoint)
    raw = samples / "global_step512"
    assert isinstance(open_checkpoint(LocalFiles(raw)), RawCheckpoint)
    assert isinstance(open_raw_checkpoint(LocalFiles(raw)), RawCheckpoint)
    with pytest.raises(CheckpointError, match="this is a Hugging Face checkpoint: expected mp_rank"):
        open_raw_checkpoint(LocalFiles(hf))


def test_a_run_needs_a_step_and_a_checkpoint_ignores_it(samples: Path) -> None:
    ref, files = find_checkpoint(Location(samples), 512)
    assert (ref.name, ref.step, files.where) == ("global_step512", 512, str(samples / "global_step512"))
    ref, files = find_checkpoint(Location(samples / "global_step512"), 7)
    assert (ref.step, files.where) == (512, str(samples / "global_step512"))
    with pytest.raises(SourceError, match="this is a run of 154 checkpoints, and no step is named"):
        find_checkpoint(Location(samples))
    with pytest.raises(SourceError, match="step 3 is not in this run"):
        find_checkpoint(Location(samples), 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pythia.Q4_K_M.gguf", "a GGUF model"),
        ("tf_model.h5", "a TensorFlow model"),
        ("tf_model-00001-of-00002.h5", "a TensorFlow model"),
        ("model.ckpt.index", "a TensorFlow model"),
        ("flax_model.msgpack", "a Flax model"),
        ("adapter_model.safetensors", "an adapter"),
        ("adapter_model.bin", "an adapter"),
    ],
)
def test_formats_that_are_not_read_are_named(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"weights")
    for attempt in (lambda: find_checkpoint(Location(tmp_path)), lambda: open_checkpoint(LocalFiles(tmp_path))):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert caught.value.what == f"{kind} ({name}) cannot be read: {EXPECTED}"


def test_what_is_not_a_checkpoint_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"of a part of a model")
    for attempt in (lambda: find_checkpoint(Location(tmp_path)), lambda: open_checkpoint(LocalFiles(tmp_path))):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        assert caught.value.what == f"no checkpoint found in this folder: {EXPECTED}"
