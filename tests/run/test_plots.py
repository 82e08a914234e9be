"""Plots on ``main``: drawn from the manifests' statistics, kept while the figures are the same, redrawn when not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from publish.hub.manifest import Manifest
from publish.rehearsal import RehearsalHub
from publish.run import plots, step
from publish.run.cards import make_cards
from publish.run.init import propose
from publish.run.plots import SHOWN, main_plots
from publish.run.progress import Silent
from publish.run.pushcards import push_cards
from tests.run.releases import TARGET, few, run_release
from tests.run.test_cards import ClientOf

PATHS = ("plots/std.svg", "plots/distance.svg")


def statistics(number: int) -> dict[str, Any]:
    moved = None if number == 0 else number / 1000
    types = {name: {"std": 0.1 + number / 10_000, "from_first": moved, "from_previous": moved} for name in SHOWN}
    return {"layer_types": types}


@pytest.fixture
def with_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every manifest of a release has statistics."""
    make = step.step_manifest

    def more(*arguments: Any, **options: Any) -> Manifest:
        manifest = make(*arguments, **options)
        return replace(manifest, statistics=statistics(manifest.step))

    monkeypatch.setattr(step, "step_manifest", more)


@pytest.mark.usefixtures("with_statistics")
def test_plots_are_published_shown_and_kept(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = few(samples, tmp_path)
    client = client_of("hf_alice")
    assert not run_release(run, client, tmp_path).failed
    api = HfApi(endpoint=hub.url, token="hf_alice")
    there = {entry.path: entry for entry in api.list_repo_tree(TARGET, recursive=True)}
    card = Path(api.hf_hub_download(TARGET, "README.md")).read_text()
    for path in PATHS:
        assert there[path].lfs is None
        assert f"]({path})" in card
    assert "embedding 0.1 to 0.151" in card
    release = propose(str(run), TARGET)
    hub.reset_stats()
    assert make_cards(release, client).changed == ()
    assert hub.stats().requests == {"refs": 1, "tree": 1, "resolve": 1}
    monkeypatch.setattr(plots, "available", lambda: False)  # another machine, without matplotlib
    assert make_cards(release, client).changed == ()
    monkeypatch.setattr(plots, "available", lambda: True)
    api.create_commit(TARGET, [CommitOperationAdd(PATHS[0], b"<svg/>")], commit_message="somebody's own plot")
    found = make_cards(release, client)
    assert [(each.branch, each.reason) for each in found.changed] == [("main", "other plots")]
    assert push_cards(found, client, Silent()).branches == ("main",)
    assert make_cards(release, client).changed == ()


@pytest.mark.usefixtures("with_statistics")
def test_without_matplotlib_a_release_has_no_plots_and_gets_them_later(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = few(samples, tmp_path)
    client = client_of("hf_alice")
    monkeypatch.setattr(plots, "available", lambda: False)
    assert not run_release(run, client, tmp_path).failed
    release = propose(str(run), TARGET)
    assert make_cards(release, client).changed == ()
    monkeypatch.setattr(plots, "available", lambda: True)
    found = make_cards(release, client)
    assert [each.branch for each in found.changed] == ["main"]
    push_cards(found, client, Silent())
    paths = HfApi(endpoint=hub.url, token=False).list_repo_files(TARGET)
    assert set(PATHS) <= set(paths)
    assert make_cards(release, client).changed == ()


def test_without_statistics_there_are_no_plots() -> None:
    assert main_plots({}).plots == ()
