"""Plots on ``main``: drawn from the manifests' statistics, kept while the figures are the same, redrawn when not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from publish import plots
from publish.rehearsal.server import RehearsalHub
from publish.release.cards import make_cards, push_cards
from publish.release.progress import Silent
from publish.release.proposal import propose
from publish.release_file import WantedComparison
from tests.release.releases import TARGET, few, run_release
from tests.release.test_cards import ClientOf

RATIOS = ("plots/ratios-step0-1.svg", "plots/ratios-step512-1.svg")
PATHS = ("plots/std.svg", "plots/distance.svg", *RATIOS)


@pytest.fixture(name="run")
def _run(samples: Path, tmp_path: Path) -> Path:
    return few(samples, tmp_path).rename(tmp_path / "tiny-seed7")


def compared(run: Path) -> dict[str, object]:
    """Two steps of the release compared with other checkpoints of the run."""
    others = ((0, "global_step2"), (512, "global_step0"))
    return {"compare": tuple(WantedComparison(step, str(run / name)) for step, name in others)}


def test_plots_are_published_shown_and_kept(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("hf_alice")
    assert not run_release(run, client, tmp_path, compared(run)).failed
    api = HfApi(endpoint=hub.url, token="hf_alice")
    there = {entry.path: entry for entry in api.list_repo_tree(TARGET, recursive=True)}
    card = Path(api.hf_hub_download(TARGET, "README.md")).read_text()
    for path in PATHS:
        assert there[path].lfs is None
        assert f"]({path})" in card
    assert re.search(r"Standard deviation of the weights over training: embedding 0\.\d+ to 0\.\d+; QKV", card)
    assert re.search(
        r"Ratios of standard deviations\. Step 512 .left. and tiny-seed7/global_step0 .right.: embedding \d", card
    )
    assert card.index(RATIOS[0]) < card.index("## Training dynamics") < card.index(PATHS[0])
    step_card = Path(api.hf_hub_download(TARGET, "README.md", revision="step512")).read_text()
    assert "### Step 512 (left) and tiny-seed7/global_step0 (right)" in step_card
    assert "Step 0 (left)" not in step_card
    assert "plots/" not in step_card
    release = propose(str(run), TARGET)
    hub.reset_stats()
    found = make_cards(release, client)
    assert (found.changed, found.findings) == ((), ())
    assert hub.stats().requests == {"refs": 1, "tree": 1, "resolve": 1}
    monkeypatch.setattr(plots, "available", lambda: False)  # another machine, without matplotlib
    assert make_cards(release, client).changed == ()
    monkeypatch.setattr(plots, "available", lambda: True)
    api.create_commit(TARGET, [CommitOperationAdd(PATHS[0], b"<svg/>")], commit_message="somebody's own plot")
    found = make_cards(release, client)
    assert [(each.branch, each.reason) for each in found.changed] == [("main", "other plots")]
    assert push_cards(found, client, Silent()).branches == ("main",)
    assert make_cards(release, client).changed == ()


def test_without_matplotlib_a_release_has_no_plots_and_gets_them_later(
    run: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("hf_alice")
    monkeypatch.setattr(plots, "available", lambda: False)
    assert not run_release(run, client, tmp_path, compared(run)).failed
    release = propose(str(run), TARGET)
    assert make_cards(release, client).changed == ()
    monkeypatch.setattr(plots, "available", lambda: True)
    found = make_cards(release, client)
    assert [each.branch for each in found.changed] == ["main"]
    push_cards(found, client, Silent())
    paths = HfApi(endpoint=hub.url, token=False).list_repo_files(TARGET)
    assert set(PATHS) <= set(paths)
    assert make_cards(release, client).changed == ()
