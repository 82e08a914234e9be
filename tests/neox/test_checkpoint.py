"""Raw checkpoints: which files they must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from publish.errors import CheckpointError, PublishError
from publish.neox.checkpoint import RawCheckpoint, find_layout, is_checkpoint
from publish.sources.files import LocalFiles

RANKS = [f"mp_rank_{rank:02}_model_states.pt" for rank in range(4)]


def layer_files(numbers: list[int], ranks: int = 1) -> list[str]:
    return [f"layer_{number:02}-model_{rank:02}-model_states.pt" for number in numbers for rank in range(ranks)]


def test_a_layout_is_told_by_file_names() -> None:
    sequential = find_layout(RANKS[:2], "here")
    assert (sequential.name, sequential.tensor_parallel, sequential.pipeline_parallel) == ("sequential", 2, 0)
    pipeline = find_layout([*RANKS, *layer_files([0, 2, 3, 5], ranks=2)], "here")
    assert (pipeline.name, pipeline.tensor_parallel, pipeline.pipeline_parallel) == ("pipeline", 2, 2)
    assert [sorted(numbers) for numbers in pipeline.layers] == [[0, 2, 3, 5]] * 2
    assert is_checkpoint(RANKS)
    assert not is_checkpoint(["model.safetensors", "zero_pp_rank_0_mp_rank_00_optim_states.pt"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no GPT-NeoX checkpoint found"),
        (RANKS[1:], "files of mp_rank 0 are missing"),
        (layer_files([2, 3, 5]), "layer_00 is missing"),
        (layer_files([0, 2, 4, 6, 7]), "layer file 03 is missing: found 00, 02, 04, 06 ... 07"),
        ([*layer_files([0, 2, 4]), *layer_files([0, 2, 4, 5], ranks=2)[1::2]], "layer file 05 of rank 00 is missing"),
    ],
)
def test_missing_files_are_named(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_layout(names, "here")


@pytest.mark.parametrize(
    "names",
    [
        ["mp_rank_99999999999999999999_model_states.pt"],
        ["mp_rank_99999_model_states.pt"],
        ["layer_00-model_00-model_states.pt", "layer_99999-model_00-model_states.pt"],
        ["layer_00-model_9999-model_states.pt"],
    ],
)
def test_file_names_ask_for_no_endless_work(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(PublishError, match=r"missing|no GPT-NeoX checkpoint"):
        RawCheckpoint.open(LocalFiles(tmp_path))
