"""A finished release, run again, makes no commit and asks little, wherever its source is."""

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
MOST = 15  # requests of a finished release


class Lab:
    """A raw run on a Hub, and the command line."""

    def __init__(self, hub: RehearsalHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.tokenizer = str(folder / "run" / "tokenizer" / "small_250.json")

    def publish(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[str, Counter[str]]:
        """What the command printed, and the requests that it made."""
        self.hub.reset_stats()
        ended = CliRunner(env=self._env(token)).invoke(main, arguments)
        assert ended.exit_code == code, ended.output
        return ended.stdout + ended.stderr, Counter(self.hub.stats().requests)

    def publish_in_a_process(self, *arguments: str) -> tuple[str, Counter[str]]:
        """The same, in a process of its own."""
        self.hub.reset_stats()
        env = {**os.environ, **self._env("hf_alice")}
        command = [sys.executable, "-W", "error", "-c", CODE, *arguments]
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
        return out, Counter(self.hub.stats().requests)

    def release(self, *arguments: str, code: int = 0, token: str = "hf_alice") -> tuple[dict[str, Any], Counter[str]]:
        """``publish all-steps``: of the run on the Hub, unless the arguments name another."""
        given = arguments or ("lab/raw", TARGET, "--tokenizer", self.tokenizer)
        out, asked = self.publish("all-steps", *given, "--json", code=code, token=token)
        return json.loads(out), asked

    def _env(self, token: str) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": token}


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


def test_a_finished_release_makes_no_commit_and_at_most_fifteen_requests(lab: Lab) -> None:
    file = lab.folder / "release.yaml"
    lab.publish("init", "lab/raw", "--target", "alice/of-a-file", "--tokenizer", lab.tokenizer, "-o", str(file))
    forms = (
        ("lab/raw", TARGET, "--tokenizer", lab.tokenizer),
        (str(file),),
        ("lab/raw", "alice/by-a-repo", "--tokenizer", tokenizer_on_hub(lab)),
        (str(lab.folder / "run"), "alice/from-a-folder", "--work-dir", str(lab.folder / "elsewhere")),
    )
    for form in forms:
        assert lab.release(*form)[0]["published"] == list(STEPS)
        out, asked = lab.publish_in_a_process("all-steps", *form, "--json")
        outcome = json.loads(out)
        assert (outcome["skipped"], outcome["commits"], outcome["main"]) == (list(STEPS), 0, "unchanged")
        print(form, asked.total(), dict(asked))
        assert asked.total() <= MOST, form


@pytest.mark.parametrize("case", ["pythia_pipe_tp2", "pythia_pipe_zero1_dp2"])
def test_a_source_of_many_files(lab: Lab, case: str) -> None:
    run = lab.folder / case
    shutil.copytree(shared(f"neox/{case}") / "global_step16", run / "global_step16")
    raw_on_hub(lab.hub, run, f"lab/{case}", (16,))
    form = (f"lab/{case}", TARGET, "--tokenizer", lab.tokenizer)
    assert lab.release(*form)[0]["published"] == [16]
    outcome, _ = lab.release(*form)
    assert (outcome["skipped"], outcome["commits"]) == ([16], 0)


@pytest.mark.parametrize("step", [0, 512])
def test_a_branch_of_the_source_that_moved_is_noticed(lab: Lab, step: int) -> None:
    lab.release()
    config = next((lab.folder / "run" / f"global_step{step}" / "configs").glob("*.yml"))
    HfApi(endpoint=lab.hub.url, token="hf_lab").upload_file(
        path_or_fileobj=config.read_bytes() + b"\n# a comment\n",
        path_in_repo=f"configs/{config.name}",
        repo_id="lab/raw",
        revision=f"step{step}",
    )
    outcome, _ = lab.release()
    assert (outcome["published"], outcome["failed"], outcome["main"]) == ([step], [], "published")
    assert lab.release()[0]["commits"] == 0


def test_a_token_sees_only_what_the_hub_shows_it(lab: Lab) -> None:
    form = ("lab/raw", "lab/tiny", "--tokenizer", lab.tokenizer)
    HfApi(endpoint=lab.hub.url, token="hf_lab").update_repo_settings("lab/raw", private=True)
    lab.release(*form, token="hf_lab")
    text, _ = lab.publish("plan", *form, code=2, token="hf_bob")
    assert "lab/raw" in text
