"""Cards in a browser: nothing is wider than the page or loaded from elsewhere, in both color schemes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from publish.cards.facts import Plot, ratio_path
from publish.cards.render import render_step, render_suite
from publish.rehearsal.server import RehearsalHub
from tests.cards import samples
from tests.rehearsal.browser import chromium, measure
from tests.test_plots import PICTURES

PLOTS = tuple(Plot(f"What {name} shows.", f"plots/{name}.svg") for name in ("std", "distance"))
RATIOS = Plot("Ratios.", ratio_path(0, 1))
LONG = "/mnt/ssd-2/pile_deduped/pile_20B_tokenizer_text_document_" + "x" * 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repo with a suite's card on ``main``, with plots, and a step's card."""
    chromium()
    run = replace(samples.RUN, config=replace(samples.RUN.config, data_paths=(LONG,), vocab_file=LONG))
    facts = samples.suite(run=run, plots=(*PLOTS, RATIOS))
    with RehearsalHub(tmp_path_factory.mktemp("site")) as hub:
        api = HfApi(endpoint=hub.url, token="hf_EleutherAI")
        api.create_repo(samples.REPO)
        files = {
            "README.md": render_suite(facts).encode(),
            **{p.path: PICTURES[p.path[6:-4].split("-")[0]] for p in (*PLOTS, RATIOS)},
        }
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(samples.REPO, operations, commit_message="card")
        api.create_branch(samples.REPO, branch="step1000")
        card = render_step(samples.step(1000)).encode()
        api.create_commit(
            samples.REPO, [CommitOperationAdd("README.md", card)], commit_message="card", revision="step1000"
        )
        yield hub


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        (390, False),
        pytest.param(390, True, marks=pytest.mark.slow),
        pytest.param(1200, False, marks=pytest.mark.slow),
    ],
)
def test_the_suites_card(site: RehearsalHub, tmp_path: Path, width: int, dark: bool) -> None:
    found = measure(f"{site.url}/{samples.REPO}", tmp_path, width=width, dark=dark)
    assert found["width"] <= width
    assert found["outside"] == []
    assert found["tables"] >= 4
    assert found["scrolling"] > 0, "a long path scrolls inside its table"
    assert len(found["pictures"]) == 3
    assert all(natural > 300 for _, natural in found["pictures"])
    assert {name.split("/")[2] for name in found["loaded"]} <= {site.url.split("/")[2]}
    assert found["dead"] == []
    paper, ink = brightness(found["paper"]), brightness(found["ink"])
    assert (paper < 60 and ink > 180) if dark else (paper > 230 and ink < 80)


@pytest.mark.slow
def test_the_steps_card_on_a_phone(site: RehearsalHub, tmp_path: Path) -> None:
    found = measure(f"{site.url}/{samples.REPO}/tree/step1000", tmp_path, width=390)
    assert found["width"] <= 390
    assert found["outside"] == []
    assert found["dead"] == []


@pytest.mark.slow
def test_hostile_text_is_shown_and_does_not_run(site: RehearsalHub, tmp_path: Path) -> None:
    """Even without the page's own content security policy, which a frame from a file does not have."""
    script = "<script>window.ran=1</script><img src=x onerror=window.ran=2><svg onload=window.ran=3>"
    card = replace(samples.CARD, title=f"T {script}", notes=f"N {script}\n\n[x](javascript:window.ran=4)")
    tensor = "gpt_neox.`layers`|0|.<b onmouseover=window.ran=5>weight"
    gates = (replace(samples.GATES[0], detail=tensor),)
    api = HfApi(endpoint=site.url, token="hf_mallory")
    api.create_repo("mallory/m")
    release = replace(samples.RELEASE, target="mallory/m", card=card)
    readme = render_step(samples.step(release=release, gates=gates)).encode()
    api.create_commit("mallory/m", [CommitOperationAdd("README.md", readme)], commit_message="card")
    found = measure(f"{site.url}/mallory/m", tmp_path, width=390)
    assert found["ran"] == 0
    assert found["width"] <= 390
    assert found["text"].count("<script>window.ran=1</script>") == 2
    assert tensor in found["text"]


def brightness(colour: str) -> float:
    """From 0 to 255, of ``rgb(r, g, b)``."""
    return sum(map(int, colour[4:-1].split(","))) / 3
