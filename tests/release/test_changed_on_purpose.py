"""What a maintainer changes on purpose is said on the card and in the manifest, with its measured effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.cards.details import decimal
from publish.errors import ConfigError
from publish.hub.client import Client
from publish.rehearsal.server import RehearsalHub
from publish.release.job import make_job
from publish.release.proposal import propose
from publish.release_file import Override
from tests.release.releases import TARGET, few, run_release

TANH = Override("hidden_act", "gelu_pytorch_tanh", "the published suite says so")


def read(hub: RehearsalHub, path: str, revision: str) -> str:
    return Path(HfApi(endpoint=hub.url, token=False).hf_hub_download(TARGET, path, revision=revision)).read_text()


def test_an_override_is_measured_and_stated(
    samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: Callable[[str], Client]
) -> None:
    outcome = run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path, {"overrides": (TANH,)})
    assert not outcome.failed
    assert json.loads(read(hub, "config.json", "step512"))["hidden_act"] == "gelu_pytorch_tanh"
    manifest = json.loads(read(hub, "publish.json", "step512"))
    assert manifest["overrides"] == [{"key": "hidden_act", "value": "gelu_pytorch_tanh", "instead_of": "gelu"}]
    figures = next(gate["figures"] for gate in manifest["gates"] if gate["name"] == "logits")
    assert 0 < figures["override_effect"] < 0.1
    assert figures["max_abs_diff"] < 1e-4 < figures["override_effect"]
    for revision in ("step512", "main"):
        card = read(hub, "README.md", revision)
        assert "`hidden_act` = `gelu_pytorch_tanh` where the run's own config makes it `gelu`" in card
        assert "the published suite says so" in card
        assert "logits change by up to" in card
    effect = decimal(float(format(figures["override_effect"], ".1e")))
    assert f"logits change by up to {effect}." in read(hub, "README.md", "step512")


def test_a_cast_is_stated(samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: Callable[[str], Client]) -> None:
    outcome = run_release(few(samples, tmp_path, (0,)), client_of("hf_alice"), tmp_path, {"dtype": "float32"})
    assert not outcome.failed
    manifest = json.loads(read(hub, "publish.json", "step0"))
    assert (manifest["source_dtype"], manifest["dtype"]) == ("float16", "float32")
    assert "weights were cast from float16 to float32 as requested" in read(hub, "README.md", "step0")


def test_the_plan_changes_so_that_published_steps_are_stale(samples: Path, tmp_path: Path) -> None:
    release = propose(str(few(samples, tmp_path)), TARGET)
    releases = (release, replace(release, dtype="float32"), replace(release, overrides=(TANH,)))
    digests = {make_job(each).plan.digest for each in releases}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("key", "message"), [("hidden_size", "follows from the tensors"), ("hiden_act", "config.json has no key hiden_act")]
)
def test_an_override_that_cannot_be_is_refused(key: str, message: str, samples: Path, tmp_path: Path) -> None:
    release = replace(propose(str(few(samples, tmp_path, (0,))), TARGET), overrides=(Override(key, 1, "so"),))
    with pytest.raises(ConfigError, match=message):
        make_job(release)
