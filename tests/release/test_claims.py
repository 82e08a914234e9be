"""What a release file says, against the config of every checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from publish.convert.plan import make_plan
from publish.hub.client import Client
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.records.gates import FAILED, PASSED, Gate
from publish.release.claims import claims
from publish.release_file import CardMetadata, Release
from publish.sources.files import LocalFiles
from tests.release.releases import few, run_release


def asked(samples: Path, step: int = 512, options: dict[str, object] | None = None, **card: object) -> Gate:
    checkpoint = RawCheckpoint.open(LocalFiles(samples / "global_step512"))
    config = read_config(checkpoint)
    changed = replace(config, options={**config.options, **(options or {})})
    text = replace(CardMetadata("tiny"), **card)  # type: ignore[arg-type]
    return claims(Release("source", "alice/tiny", text), changed, make_plan(checkpoint, config), step)


TRUE: tuple[dict[str, object], ...] = (
    {},
    {"title": "Pythia-tiny-seed1234"},
    {"title": "Pythia-tiny-seed0"},  # of a suite whose first run has GPT-NeoX's default seed
    {"title": "Pythia-tiny-data-seed3"},
    {"title": "Pythia 0.0148M"},
    {"notes": "Trained with 2 layers, 2 attention heads and seed 1234."},
    {"datasets": ("EleutherAI/pile",), "options": {"train_data_paths": ["/data/pile/text_document"]}},
)
FALSE: tuple[tuple[dict[str, object], str], ...] = (
    ({"title": "Pythia-tiny-seed3"}, "says seed 3, the config 1234"),
    ({"title": "Pythia-14M"}, "says 14M, and the model has 14,784 parameters"),
    ({"notes": "It has 12 layers."}, "says layers 12, the config 2"),
    ({"notes": "Warm-up over 10 % of training."}, "says 10 % warm-up"),
    (
        {"datasets": ("EleutherAI/pile",), "options": {"train_data_paths": ["/data/pile_deduped/text_document"]}},
        "the config's path is /data/pile_deduped",
    ),
    ({"step": 513}, "the config saves 154 steps, the last one 143,000, and not step 513"),
    ({"step": 144000}, "the last one 143,000"),
)


@pytest.mark.parametrize("said", TRUE, ids=str)
def test_what_is_true_passes(samples: Path, said: dict[str, object]) -> None:
    assert asked(samples, **said).outcome == PASSED  # type: ignore[arg-type]


@pytest.mark.parametrize(("said", "what"), FALSE, ids=str)
def test_what_is_false_is_named(samples: Path, said: dict[str, object], what: str) -> None:
    found = asked(samples, **said)  # type: ignore[arg-type]
    assert (found.outcome, what in found.detail) == (FAILED, True), found.detail


def test_every_checkpoint_is_asked(samples: Path, tmp_path: Path, client_of: Callable[[str], Client]) -> None:
    run = few(samples, tmp_path)
    config = next((run / "global_step2" / "configs").glob("*.yml"))
    config.write_text(config.read_text().replace("{", '{"seed": 7, ', 1))
    outcome = run_release(run, client_of("hf_alice"), tmp_path, verify_logits="off")
    assert [failure.step for failure in outcome.failed] == [2]
    assert "seed is 7 here and 1234" in outcome.failed[0].detail
