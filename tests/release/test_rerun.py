"""A finished release, run again, asks at most 15 requests and commits nothing, wherever its source is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.cli.group import main
from publish.rehearsal.server import RehearsalHub
from tests.conftest import shared
from tests.release.processes import CODE
from tests.release.releases import TARGET, few
from tests.release.test_release import raw_on_hub

STEPS = (0, 1, 512)
MOST = 15  # requests of a finished release, run again


class Lab:
    """A raw run on a Hub, and the command line."""

    def __init__(self, hub: RehearsalHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.tokenizer = str(folder / "run" / "tokenizer" / "small_250.json")

    def publish(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[str, Counter[str]]:
        """What it printed, and the requests that it took."""
        self.hub.reset_stats()
        ended = CliRunner(env=self._env(token)).invoke(main, arguments)
        assert ended.exit_code == code, ended.output
        return ended.stdout + ended.stderr, Counter(self.hub.stats().requests)

    def publish_afresh(self, *arguments: str) -> tuple[str, Counter[str]]:
        """The same, in a process of its own."""
        self.hub.reset_stats()
        env = {**os.environ, **self._env("hf_alice")}
        command = [sys.executable, "-W", "error", "-c", CODE, *arguments]
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
        return out, Counter(self.hub.stats().requests)

    def release(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[dict[str, Any], Counter[str]]:
        """``publish all-steps``, of the run on the Hub unless something else is named."""
        given = arguments or ("lab/raw", TARGET, "--tokenizer", self.tokenizer)
        out, asked = self.publish("all-steps", *given, "--json", code=code, token=token)
        return json.loads(out), asked

    def _env(self, token: str) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": token, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def lab(samples: Path, tmp_path: Path, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    raw_on_hub(hub, few(samples, tmp_path, STEPS), "lab/raw", STEPS)
    return Lab(hub, tmp_path)


def tokenizer_on_hub(lab: Lab) -> str:
    api = HfApi(endpoint=lab.hub.url, token="hf_lab")
    api.create_repo("lab/tokenizer")
    api.upload_file(path_or_fileobj=lab.tokenizer, path_in_repo="tokenizer.json", repo_id="lab/tokenizer")
    return "lab/tokenizer"


def test_a_finished_release_asks_few_requests_and_commits_nothing(lab: Lab) -> None:
    file = lab.folder / "release.yaml"
    lab.publish("init", "lab/raw", "--target", "alice/of-a-file", "--tokenizer", lab.tokenizer, "-o", str(file))
    forms = (
        ("lab/raw", TARGET, "--tokenizer", lab.tokenizer),
        (str(file),),
        ("lab/raw", "alice/by-a-repo", "--tokenizer", tokenizer_on_hub(lab)),
        ("lab/raw", "alice/elsewhere", "--tokenizer", lab.tokenizer, "--work-dir", str(lab.folder / "elsewhere")),
    )
    for form in forms:
        assert lab.release(*form)[0]["published"] == list(STEPS)
        out, asked = lab.publish_afresh("all-steps", *form, "--json")
        outcome = json.loads(out)
        assert (outcome["skipped"], outcome["commits"], outcome["main"]) == (list(STEPS), 0, "as it should be")
        assert asked.total() <= MOST + 3 * ("lab/tokenizer" in form), asked  # its commit, its files, tokenizer.json


@pytest.mark.parametrize("case", ["pythia_pipe_tp2", "pythia_pipe_zero1_dp2"])
def test_a_source_of_many_files_asks_for_each_index(lab: Lab, case: str) -> None:
    run = lab.folder / case
    files = len(list(shutil.copytree(shared(f"neox/{case}") / "global_step16", run / "global_step16").glob("*.pt")))
    raw_on_hub(lab.hub, run, f"lab/{case}", (16,))
    form = (f"lab/{case}", TARGET, "--tokenizer", lab.tokenizer)
    assert lab.release(*form)[0]["published"] == [16]
    outcome, asked = lab.release(*form)
    assert (outcome["skipped"], outcome["commits"]) == ([16], 0)
    assert asked.total() <= MOST + 4 * files, asked  # two for an index, which is read to propose and to plan


@pytest.mark.parametrize("step", [0, 512])
def test_a_branch_of_the_source_that_moved_is_noticed(lab: Lab, step: int) -> None:
    lab.release()
    config = next((lab.folder / "run" / f"global_step{step}" / "configs").glob("*.yml"))
    HfApi(endpoint=lab.hub.url, token="hf_lab").upload_file(
        path_or_fileobj=config.read_bytes() + b"\n# a word more\n",
        path_in_repo=f"configs/{config.name}",
        repo_id="lab/raw",
        revision=f"step{step}",
    )
    outcome, _ = lab.release()
    assert (outcome["published"], outcome["failed"], outcome["main"]) == ([step], [], "published")
    assert lab.release()[0]["commits"] == 0


def test_a_token_without_access_sees_nothing_of_a_private_source(lab: Lab) -> None:
    form = ("lab/raw", "lab/tiny", "--tokenizer", lab.tokenizer)
    HfApi(endpoint=lab.hub.url, token="hf_lab").update_repo_settings("lab/raw", private=True)
    lab.release(*form, token="hf_lab")
    said, asked = lab.publish("plan", *form, code=2, token="hf_bob")
    assert "lab/raw" in said
    assert asked == {"refs": 1}
