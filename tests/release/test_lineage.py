"""What a release does with its lineage: a defect is named and does not reach main; figures stand in the records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.rehearsal.server import RehearsalHub
from publish.release.outcome import Outcome
from publish.release_file import ExpectedEqual, ExpectedJump, WantedComparison
from tests.compare.models import Model, save
from tests.conftest import shared
from tests.release.releases import TARGET, few, run_release

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
MATRIX = "sequential.2.attention.dense.weight"
ClientOf = Callable[[str], Client]
Module = dict[str, torch.Tensor]


@pytest.fixture
def run(samples: Path, tmp_path: Path) -> Path:
    return few(samples, tmp_path, STEPS)


def forge(run: Path, step: int, change: Callable[[Module], Any], source: Path | None = None) -> None:
    """Change the weights of a step; all else, its iteration too, stays as it is. ``source``: take them from there."""
    name = "mp_rank_00_model_states.pt"
    path = run / f"global_step{step}" / name
    state = torch.load(path, weights_only=False)
    if source is not None:
        state["module"] = torch.load(source / name, weights_only=False)["module"]
    change(state["module"])
    torch.save(state, path)


def released(run: Path, client_of: ClientOf, folder: Path, **change: object) -> Outcome:
    return run_release(run, client_of("hf_alice"), folder, change or None, verify_logits="off")


def test_distances_and_gates_are_in_the_records(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    outcome = released(run, client_of, tmp_path)
    assert (outcome.failed, outcome.main.status) == ((), "published")
    assert [(gate.name, gate.outcome) for gate in outcome.main.lineage] == [
        ("repeats", "passed"),
        ("lineage", "passed"),
    ]
    api = HfApi(endpoint=hub.url, token=False)
    listing = json.loads(Path(api.hf_hub_download(TARGET, "checkpoints.json")).read_text())
    assert [gate["name"] for gate in listing["notes"]["lineage"]] == ["repeats", "lineage"]
    distances = listing["checkpoints"][-1]["distances"]
    last = next(distance for distance in distances if distance["layer_type"] == "embedding")
    assert 0.2 < last["from_first"] < 0.5
    assert 0 < last["from_previous"] < last["from_first"]
    manifest = json.loads(Path(api.hf_hub_download(TARGET, "publish.json", revision="step512")).read_text())
    assert "embedding" in [layer_type["name"] for layer_type in manifest["layer_types"]]
    assert len(manifest["sketch"]) == 28
    card = Path(api.hf_hub_download(TARGET, "README.md")).read_text()
    assert "each of 12 steps is between its neighbours" in card


def test_a_rerun_and_a_resumed_run_find_the_same(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    first = released(run, client_of, tmp_path)
    hub.reset_stats()
    again = released(run, client_of, tmp_path / "elsewhere")
    assert (again.commits, again.main.status) == (0, "unchanged")
    assert sum(hub.stats().requests.values()) <= 15
    assert first.main.status == "published"


def test_a_foreign_step_is_named_and_main_held_back(run: Path, tmp_path: Path, client_of: ClientOf) -> None:
    forge(run, 64, lambda module: None, shared("suite/pythia-tiny-seed1/global_step64"))
    outcome = released(run, client_of, tmp_path)
    assert [(failure.step, failure.kind) for failure in outcome.failed] == [(64, "out-of-order")]
    assert (outcome.main.status, outcome.main.detail) == ("held", "held back by 1 finding about the suite")
    assert {gate.outcome for gate in outcome.main.lineage} == {"passed", "failed"}
    again = released(run, client_of, tmp_path)
    assert (again.commits, [failure.step for failure in again.failed]) == (0, [64])
    declared = released(run, client_of, tmp_path, jumps=(ExpectedJump((64,), "so it was"),))
    assert (declared.failed, declared.main.status) == ((), "published")


def test_swapped_branches_are_both_named(run: Path, samples: Path, tmp_path: Path, client_of: ClientOf) -> None:
    for step, other in ((128, 256), (256, 128)):
        forge(run, step, lambda module: None, samples / f"global_step{other}")
    outcome = released(run, client_of, tmp_path)
    assert {failure.kind for failure in outcome.failed} == {"out-of-order"}
    assert "step 128" in outcome.failed[0].detail
    assert "step 256" in outcome.failed[0].detail


DAMAGE: dict[str, tuple[Callable[[Module], Any], str]] = {
    "a zeroed tensor": (lambda module: module[MATRIX].zero_(), "all values are the same in"),
    "one NaN": (lambda module: module[MATRIX].view(-1).__setitem__(7, float("nan")), "1 NaN"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_step_is_not_pushed(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, damage: str
) -> None:
    change, said = DAMAGE[damage]
    forge(run, 512, change)
    outcome = released(run, client_of, tmp_path)
    assert [failure.step for failure in outcome.failed] == [512]
    assert said in outcome.failed[0].detail
    assert "gpt_neox.layers.0.attention.dense.weight" in outcome.failed[0].detail
    assert "step512" not in {branch.name for branch in HfApi(endpoint=hub.url).list_repo_refs(TARGET).branches}


def test_zeros_of_another_sign_break_a_declared_equality(run: Path, tmp_path: Path, client_of: ClientOf) -> None:
    expect = (ExpectedEqual((0, 1), "rate 0"),)
    forge(run, 1, lambda module: module["sequential.2.attention.dense.bias"].neg_())
    outcome = released(run, client_of, tmp_path, expect=expect)
    assert len(outcome.failed) == 1
    said = "differ in the sign of zeros in 1 tensor: gpt_neox.layers.0.attention.dense.bias"
    assert said in outcome.failed[0].detail


def test_a_comparison_stands_on_the_step_and_on_main(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf
) -> None:
    model = Model(layers=2, hidden=16, vocabulary=256)
    other = save(tmp_path / "another model", {k: np.ascontiguousarray(v) for k, v in model.draw(7).items()})
    wanted = (WantedComparison(0, str(other)),)
    assert released(run, client_of, tmp_path, compare=wanted).failed == ()
    api = HfApi(endpoint=hub.url, token=False)
    for revision in ("step0", "main"):
        card = Path(api.hf_hub_download(TARGET, "README.md", revision=revision)).read_text()
        assert "Step 0 (left) and another model (right)" in card
        assert "same-init-different-rng" in card
        assert "18 bitwise equal, 10 different" in card
        assert str(tmp_path) not in card
    assert "another model" not in Path(api.hf_hub_download(TARGET, "README.md", revision="step1")).read_text()
