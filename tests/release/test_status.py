"""What ``publish status`` says of every step, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.cli.group import main
from publish.hub.client import Client
from publish.rehearsal.server import RehearsalHub
from publish.release.proposal import propose, release_yaml
from tests.release.releases import TARGET, few, run_release

ClientOf = Callable[[str], Client]
Status = Callable[..., dict[int, tuple[str, str]]]


@pytest.fixture
def release(samples: Path, tmp_path: Path, hub: RehearsalHub, client_of: ClientOf) -> Path:
    """A finished release of four steps, and its release file."""
    run = few(samples, tmp_path)
    file = tmp_path / "release.yaml"
    file.write_text(release_yaml(propose(str(run), TARGET), None))
    assert run_release(run, client_of("hf_alice"), tmp_path).main.status == "published"
    return file


@pytest.fixture
def status(hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Status:
    """Step -> state and reason, by the command itself."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)

    def ask(file: Path, code: int = 1) -> dict[int, tuple[str, str]]:
        result = CliRunner().invoke(main, ["status", str(file), "--json"])
        assert result.exit_code == code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        assert document["ok"] is (code == 0)
        return {row["step"]: (row["state"], row["reason"]) for row in document["steps"]}

    return ask


def test_published(release: Path, status: Status) -> None:
    assert status(release, 0) == dict.fromkeys((0, 1, 2, 512), ("published", "as recorded at its tip"))


def test_missing(release: Path, status: Status, hub: RehearsalHub, samples: Path) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.delete_branch(TARGET, branch="step1")
    first = api.list_repo_commits(TARGET)[-1].commit_id
    api.delete_branch(TARGET, branch="step2")
    api.create_branch(TARGET, branch="step2", revision=first)
    found = status(release)
    assert found[1] == ("missing", "the branch does not exist")
    assert found[2] == ("missing", "the branch has no commit yet")
    assert found[512][0] == "published"


def test_nothing_is_there(tmp_path: Path, samples: Path, status: Status) -> None:
    file = tmp_path / "release.yaml"
    file.write_text(release_yaml(propose(str(few(samples, tmp_path)), TARGET), None))
    assert set(status(file).values()) == {("missing", "the branch does not exist")}


def test_stale_by_its_source(release: Path, status: Status) -> None:
    config = next((release.parent / "run" / "global_step2" / "configs").glob("*.yml"))
    config.write_text(config.read_text() + "\n# a word more\n")
    found = status(release)
    assert found[2][0] == "stale"
    assert found[2][1].startswith("source index:")
    assert [state for state, _ in found.values()].count("published") == 3


def test_stale_by_its_plan(release: Path, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publish.convert.plan.FORMAT", 99)  # another version writes the tensors otherwise
    assert {(state, reason.split()[0]) for state, reason in status(release).values()} == {("stale", "plan")}


def test_stale_by_its_tokenizer(release: Path, status: Status) -> None:
    file = release.parent / "run" / "tokenizer" / "small_250.json"
    document = json.loads(file.read_text())
    words = document["model"]["vocab"]
    words["another"] = words.pop(next(word for word, number in words.items() if number == 200))
    file.write_text(json.dumps(document))
    assert {(state, reason.split()[0]) for state, reason in status(release).values()} == {("stale", "tokenizer.json")}


def test_stale_by_its_card(release: Path, status: Status) -> None:
    text = release.read_text()
    release.write_text(text.replace('title: "tiny"', 'title: "Tiny, a model"'))
    assert text != release.read_text()
    assert {(state, reason.split()[0]) for state, reason in status(release).values()} == {("stale", "card")}


def test_stale_by_what_somebody_changed(release: Path, status: Status, hub: RehearsalHub) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.upload_file(path_or_fileobj=b"x" * 100, path_in_repo="model.safetensors", repo_id=TARGET, revision="step1")
    api.delete_file("model.safetensors", repo_id=TARGET, revision="step2")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="theirs.txt", repo_id=TARGET, revision="step512")
    api.upload_file(path_or_fileobj=b'["mine"]', path_in_repo="checkpoints.json", repo_id=TARGET)
    found = status(release)
    assert [found[step][0] for step in (0, 1, 2, 512)] == ["published", "stale", "stale", "stale"]
    assert found[1][1].startswith("files: model.safetensors has 100 bytes instead of ")
    assert found[2][1] == "files: model.safetensors is missing"
    assert found[512][1] == "files: theirs.txt is not in the manifest"


def test_foreign(release: Path, status: Status, hub: RehearsalHub) -> None:
    api = HfApi(endpoint=hub.url, token="hf_bob")
    api.create_repo("bob/other")
    shutil.rmtree(hub.root / "repos" / "models" / "bob")  # only the name was wanted
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.delete_file("publish.json", repo_id=TARGET, revision="step1")
    theirs = json.loads(Path(api.hf_hub_download(TARGET, "publish.json", revision="step2")).read_text())
    api.upload_file(
        path_or_fileobj=json.dumps({**theirs, "step": 3}).encode(),
        path_in_repo="publish.json",
        repo_id=TARGET,
        revision="step2",
    )
    api.upload_file(path_or_fileobj=b"{", path_in_repo="publish.json", repo_id=TARGET, revision="step512")
    found = status(release)
    assert found[1] == ("foreign", "none of its 7 files is publish.json")
    assert found[2] == ("foreign", "its publish.json is for step 3")
    assert found[512][0] == "foreign"
    assert "cannot be read" in found[512][1]
