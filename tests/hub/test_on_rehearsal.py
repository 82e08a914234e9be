"""The same against the rehearsal Hub: real git, real LFS, stock huggingface_hub."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publish.errors import HubError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile, fetch_file
from publish.hub.failures import Endpoint, Refused
from publish.hub.reads import TreeEntry, first_commit, latest_commits, list_branches, list_tree
from publish.hub.repository import Base, check_may_write, ensure_repo, find_base, probe_write, whoami
from publish.hub.transaction import Published, preupload_lfs, publish_branch
from publish.records.checkpoints import NAME, CheckpointRecord, Checkpoints
from publish.records.files import FileRecord
from publish.records.manifest import Manifest
from publish.rehearsal.server import RehearsalHub
from publish.release.state import Expected, look
from tests.clock import ManualClock
from tests.hub.test_manifest import example

REPO = "alice/m"
STEPS = (0, 1, 2)
WEIGHTS = {step: random.Random(step).randbytes(300_000) for step in STEPS}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def client(hub: RehearsalHub, tmp_path: Path) -> Client:
    return Client(Endpoint(hub.url, "hf_alice"), clock=ManualClock(), quota_dir=tmp_path / "quota")


@pytest.fixture
def base(client: Client) -> Base:
    assert ensure_repo(client, REPO) is True
    assert ensure_repo(client, REPO) is False
    return find_base(client, REPO)


def step_files(step: int, folder: Path) -> tuple[Manifest, list[BranchFile]]:
    weights = folder / f"{step}.safetensors"
    weights.write_bytes(WEIGHTS[step])
    card = f"---\nlicense: apache-2.0\n---\n# step {step}\n".encode()
    files = [
        BranchFile.of_bytes("README.md", card),
        BranchFile.of_bytes("config.json", b"{}\n"),
        BranchFile("model.safetensors", weights, 300_000, hashlib.sha256(WEIGHTS[step]).hexdigest()),
    ]
    records = tuple(FileRecord(file.path, file.size, file.sha256) for file in files)
    made = replace(example(), step=step, branch=f"step{step}", files=records)
    return made, [*files, BranchFile.of_bytes("publish.json", made.to_bytes())]


def release(client: Client, base: Base, folder: Path) -> list[Published]:
    tips = list_branches(client, REPO)
    outcomes: list[Published] = []
    records = []
    for step in STEPS:
        made, files = step_files(step, folder)
        outcome = publish_branch(client, base, made.branch, files, f"step {step}", tip=tips.get(made.branch))
        outcomes.append(outcome)
        records.append(CheckpointRecord.of(made, outcome.commit))
    summary = BranchFile.of_bytes(NAME, Checkpoints(REPO, tuple(records)).to_bytes())
    outcomes.append(publish_branch(client, base, "main", [summary], "all steps", tip=tips["main"]))
    return outcomes


def test_a_release_and_again(client: Client, base: Base, tmp_path: Path) -> None:
    first = release(client, base, tmp_path)
    assert all(branch.committed for branch in first)
    tips = list_branches(client, REPO)
    for step in STEPS:
        history = latest_commits(client, REPO, f"step{step}")
        assert [each.id for each in history] == [tips[f"step{step}"], base.commit]
        paths = [entry.path for entry in list_tree(client, REPO, f"step{step}")]
        assert paths == [".gitattributes", "README.md", "config.json", "model.safetensors", "publish.json"]
    again = release(client, base, tmp_path)
    assert not any(branch.committed for branch in again)
    assert list_branches(client, REPO) == tips


def test_status_costs_two_requests(client: Client, base: Base, tmp_path: Path) -> None:
    release(client, base, tmp_path)
    made = [step_files(step, tmp_path)[0] for step in STEPS]
    expected = [Expected(each.step, each.branch, each.source.commit, each.plan) for each in made]
    before = sum(client.requests.values())
    states = look(client, REPO, [*expected, Expected(4, "step4", None, None)])
    assert [each.state for each in states] == ["published"] * 3 + ["missing"]
    assert sum(client.requests.values()) - before == 2


def test_reading_back_bytes(client: Client, base: Base, tmp_path: Path) -> None:
    release(client, base, tmp_path)
    commit = list_branches(client, REPO)["step1"]
    entries = {entry.path: entry for entry in list_tree(client, REPO, commit)}
    weights = entries["model.safetensors"]
    assert weights.lfs_sha256 == hashlib.sha256(WEIGHTS[1]).hexdigest()
    remote = RemoteFile(client, REPO, commit, weights.path, weights.size)
    for offset, length in ((0, 8), (123_456, 70_000), (299_999, 1)):
        assert remote.read(offset, length) == WEIGHTS[1][offset : offset + length]
    assert fetch_file(client, REPO, commit, weights) == WEIGHTS[1]
    assert fetch_file(client, REPO, commit, entries["config.json"]) == b"{}\n"
    before = sum(client.requests.values())
    again = RemoteFile(client, REPO, commit, weights.path, weights.size)
    for offset in (0, 1000, 2000):
        again.read(offset, 10)
    assert sum(client.requests.values()) - before <= 4


def test_rights(hub: RehearsalHub, client: Client, base: Base, tmp_path: Path) -> None:
    check_may_write(whoami(client), REPO)
    probe_write(client, REPO)
    assert first_commit(client, REPO) == base.commit
    mallory = Client(Endpoint(hub.url, "hf_mallory"), clock=ManualClock(), quota_dir=tmp_path / "quota")
    with pytest.raises(HubError, match="belongs to mallory"):
        check_may_write(whoami(mallory), REPO)
    with pytest.raises(Refused) as caught:
        publish_branch(mallory, base, "step9", [BranchFile.of_bytes("x", b"x")], "mine")
    assert caught.value.status in (401, 403)
    assert "step9" not in list_branches(client, REPO)


def test_two_publishers_at_once(hub: RehearsalHub, client: Client, base: Base, tmp_path: Path) -> None:
    twin = Client(Endpoint(hub.url, "hf_alice"), clock=ManualClock(), quota_dir=tmp_path / "quota")
    outcomes: list[list[Published]] = []
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    runs = zip((client, twin), folders, strict=True)
    threads = [
        threading.Thread(target=lambda each=each, folder=folder: outcomes.append(release(each, base, folder)))
        for each, folder in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    for step in STEPS:
        assert len(latest_commits(client, REPO, f"step{step}")) == 2


def final_step(client: Client, base: Base, folder: Path) -> tuple[str, TreeEntry, list[BranchFile]]:
    """The last step, published; its commit, its weights there, and a `main` that copies them."""
    release(client, base, folder)
    commit = list_branches(client, REPO)["step2"]
    (weights,) = (entry for entry in list_tree(client, REPO, commit) if entry.path == "model.safetensors")
    return commit, weights, [BranchFile.copied(weights, commit), BranchFile.of_bytes("README.md", b"# a suite\n")]


def test_main_copies_the_weights_of_a_step(hub: RehearsalHub, client: Client, base: Base, tmp_path: Path) -> None:
    commit, weights, files = final_step(client, base, tmp_path)
    hub.reset_stats()
    outcome = publish_branch(client, base, "main", files, "the final step", tip=list_branches(client, REPO)["main"])
    assert outcome.committed
    assert outcome.removed == (NAME,)
    on_main = {entry.path: entry for entry in list_tree(client, REPO, "main")}
    assert on_main[weights.path] == weights
    assert not hub.stats().requests.keys() & {"lfs-batch", "lfs-upload", "resolve", "cdn"}
    again = publish_branch(client, base, "main", files, "the final step", tip=outcome.commit)
    assert again == Published("main", outcome.commit, committed=False)
    newer = [BranchFile.copied(weights, commit), BranchFile.of_bytes("README.md", b"# the suite\n")]
    assert publish_branch(client, base, "main", newer, "new words", tip=outcome.commit).committed
    assert weights in list_tree(client, REPO, "main")


LOST = [
    {"route": "commit", "status": 504, "after": True},
    {"route": "commit", "status": 504},
    {"route": "paths-info", "status": 503},
    {"route": "paths-info", "drop": "after"},
]


@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_copy_survives_a_lost_answer(
    fault: dict[str, Any], hub: RehearsalHub, client: Client, base: Base, tmp_path: Path
) -> None:
    _, weights, files = final_step(client, base, tmp_path)
    hub.inject([{**fault, "nth": 1}])
    hub.reset_stats()
    outcome = publish_branch(client, base, "main", files, "the final step", tip=list_branches(client, REPO)["main"])
    assert outcome.committed
    assert hub.stats().commits[REPO]["main"] == 1
    assert weights in list_tree(client, REPO, "main")


def test_a_copy_needs_its_source(client: Client, base: Base, tmp_path: Path) -> None:
    _, weights, files = final_step(client, base, tmp_path)
    absent = [BranchFile.copied(weights, base.commit), *files[1:]]
    before = list_branches(client, REPO)
    with pytest.raises(HubError, match=r"model\.safetensors"):
        publish_branch(client, base, "main", absent, "the final step", tip=before["main"])
    assert list_branches(client, REPO) == before


def test_only_lfs_files_are_copied(client: Client, base: Base, tmp_path: Path) -> None:
    commit, _, _ = final_step(client, base, tmp_path)
    (config,) = (entry for entry in list_tree(client, REPO, commit) if entry.path == "config.json")
    with pytest.raises(ValueError, match="not in LFS"):
        BranchFile.copied(config, commit)


def test_files_uploaded_before_are_not_uploaded_again(
    hub: RehearsalHub, client: Client, base: Base, tmp_path: Path
) -> None:
    _, files = step_files(1, tmp_path)
    preupload_lfs(client, REPO, files)
    hub.reset_stats()
    assert publish_branch(client, base, "step1", files, "step 1").committed
    assert "lfs-upload" not in hub.stats().requests
