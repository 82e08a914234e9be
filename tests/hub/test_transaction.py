"""Publishing a branch on a rehearsal Hub, with the real client. What faults do to it is in test_faults.py."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitInfo, HfApi

from publish.errors import HubError, StorageError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.hub.failures import Refused, Transient, Unavailable
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.hub.repository import Base, find_base
from publish.hub.transaction import Published, preupload_lfs, publish_branch
from publish.interrupt import Interrupted
from publish.rehearsal.server import RehearsalHub
from tests.clock import ManualClock

CARD = b"---\nlicense: apache-2.0\n---\n# a model\n"
WEIGHTS = bytes(range(256)) * 64


@pytest.fixture
def files(tmp_path: Path) -> list[BranchFile]:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(WEIGHTS)
    return [
        BranchFile.of_bytes("README.md", CARD),
        BranchFile.of_bytes("config.json", b"{}\n"),
        BranchFile("model.safetensors", weights, len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()),
    ]


def holds(api: HfApi, base: Base, branch: str, files: list[BranchFile], commits: int = 1) -> None:
    """The branch has exactly these files, and so many commits on top of the base."""
    tree = api.list_repo_tree(base.repo, recursive=True, revision=branch)
    found = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in tree}  # type: ignore[union-attr]
    found.pop(".gitattributes")
    in_lfs = (".safetensors", ".bin")
    assert found == {file.path: file.sha256 if file.path.endswith(in_lfs) else file.git_sha1() for file in files}
    history = [commit.commit_id for commit in api.list_repo_commits(base.repo, revision=branch)]
    assert history.index(base.commit) == commits


def push(api: HfApi, repo: str, branch: str, files: dict[str, bytes]) -> str:
    """Commit files to a branch as its owner would, by hand; the commit."""
    api.create_branch(repo, branch=branch, exist_ok=True)
    commit = ""
    for path, content in files.items():
        commit = api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=repo, revision=branch).oid
    return commit


def test_a_branch_gets_one_commit(
    client: Client, base: Base, hub: RehearsalHub, api: HfApi, files: list[BranchFile]
) -> None:
    outcome = publish_branch(client, base, "step1", files, "step 1")
    stats = hub.stats()
    assert stats.commits[base.repo] == {"step1": 1}
    assert sum(stats.requests.values()) <= 8  # as docs/faults.md says, and one for the card's front matter
    assert outcome == Published("step1", list_branches(client, base.repo)["step1"], committed=True)
    holds(api, base, "step1", files)


def test_a_branch_that_is_right_is_left_alone(
    client: Client, base: Base, hub: RehearsalHub, api: HfApi, files: list[BranchFile]
) -> None:
    first = publish_branch(client, base, "step1", files, "step 1")
    hub.reset_stats()
    again = publish_branch(client, base, "step1", files, "step 1", tip=first.commit)
    assert again == Published("step1", first.commit, committed=False)
    assert hub.stats().requests == {"tree": 1}
    assert publish_branch(client, base, "step1", files, "step 1") == again  # by somebody who has not looked
    assert not hub.stats().commits
    holds(api, base, "step1", files)


def test_what_the_branch_held_is_removed_and_reported(
    client: Client, base: Base, api: HfApi, files: list[BranchFile]
) -> None:
    tip = push(api, base.repo, "step1", {"pytorch_model.bin": b"old", "config.json": b"old", "a/b.txt": b"x"})
    outcome = publish_branch(client, base, "step1", files, "step 1", tip=tip)
    assert outcome.committed
    assert outcome.removed == ("a/b.txt", "pytorch_model.bin")
    holds(api, base, "step1", files, commits=4)


def test_a_branch_does_not_inherit_from_main(client: Client, base: Base, api: HfApi, files: list[BranchFile]) -> None:
    push(api, base.repo, "main", {"final.bin": b"the last step"})
    publish_branch(client, base, "step1", files, "step 1")
    holds(api, base, "step1", files)


def test_a_first_commit_with_files_is_cleaned(client: Client, repo: str, api: HfApi, files: list[BranchFile]) -> None:
    push(api, repo, "main", {"LICENSE": b"x"})
    api.super_squash_history(repo)  # now the first commit holds it
    base = find_base(client, repo)
    assert publish_branch(client, base, "step1", files, "step 1").removed == ("LICENSE",)
    holds(api, base, "step1", files)


def test_weights_are_not_hashed_again(
    client: Client, base: Base, api: HfApi, files: list[BranchFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*_: object) -> bytes:
        raise AssertionError("hashed again")

    monkeypatch.setattr("huggingface_hub.lfs.sha_fileobj", hashed)
    publish_branch(client, base, "step1", files, "step 1")
    holds(api, base, "step1", files)


def test_files_uploaded_before_are_not_uploaded_again(
    client: Client, base: Base, hub: RehearsalHub, api: HfApi, files: list[BranchFile]
) -> None:
    preupload_lfs(client, base.repo, files)
    hub.reset_stats()
    assert publish_branch(client, base, "step1", files, "step 1").committed
    assert "lfs-upload" not in hub.stats().requests
    holds(api, base, "step1", files)


def test_an_invalid_card_ends_before_anything(client: Client, base: Base, hub: RehearsalHub) -> None:
    with pytest.raises(HubError, match="license"):
        publish_branch(client, base, "step1", [BranchFile.of_bytes("README.md", b"---\nlicense: [1]\n---\n")], "x")
    assert hub.stats().requests == {"validate-yaml": 1}


def test_local_files_are_looked_at_first(
    client: Client, base: Base, hub: RehearsalHub, files: list[BranchFile]
) -> None:
    path = files[2].content
    assert isinstance(path, Path)
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(StorageError, match="16383 bytes, but had 16384"):
        publish_branch(client, base, "step1", files, "step 1")
    path.unlink()
    with pytest.raises(StorageError, match="gone"):
        publish_branch(client, base, "step1", files, "step 1")
    assert not hub.stats().requests


def test_a_path_listed_twice(client: Client, base: Base, files: list[BranchFile]) -> None:
    with pytest.raises(HubError, match="twice"):
        publish_branch(client, base, "step1", [*files, files[0]], "step 1")


# Copies: `main` holds the weights of a step without a byte sent or read.


@pytest.fixture
def final(client: Client, base: Base, files: list[BranchFile]) -> tuple[TreeEntry, str]:
    """The weights of a published step, and its commit."""
    commit = publish_branch(client, base, "step2", files, "step 2").commit
    (weights,) = (entry for entry in list_tree(client, base.repo, commit) if entry.path == "model.safetensors")
    return weights, commit


def main_files(final: tuple[TreeEntry, str], card: bytes = b"# a suite\n") -> list[BranchFile]:
    return [BranchFile.copied(*final), BranchFile.of_bytes("README.md", card)]


def test_main_copies_the_weights_of_a_step(
    client: Client, base: Base, hub: RehearsalHub, api: HfApi, final: tuple[TreeEntry, str]
) -> None:
    tip = push(api, base.repo, "main", {"old.txt": b"x"})
    hub.reset_stats()
    outcome = publish_branch(client, base, "main", main_files(final), "the final step", tip=tip)
    assert outcome.committed
    assert outcome.removed == ("old.txt",)
    assert not hub.stats().requests.keys() & {"lfs-batch", "lfs-upload", "resolve", "cdn"}
    holds(api, base, "main", main_files(final), commits=2)
    again = publish_branch(client, base, "main", main_files(final), "the final step", tip=outcome.commit)
    assert again == Published("main", outcome.commit, committed=False)
    newer = main_files(final, b"# the suite\n")
    assert publish_branch(client, base, "main", newer, "new words", tip=outcome.commit).committed
    holds(api, base, "main", newer, commits=3)


@pytest.mark.parametrize(
    "fault",
    [
        {"route": "commit", "status": 504, "after": True},
        {"route": "commit", "status": 504},
        {"route": "paths-info", "status": 503},
        {"route": "paths-info", "drop": "after"},
    ],
    ids=str,
)
def test_a_copy_survives_a_lost_answer(
    fault: dict[str, Any], client: Client, base: Base, hub: RehearsalHub, api: HfApi, final: tuple[TreeEntry, str]
) -> None:
    hub.inject([{**fault, "nth": 1}])
    hub.reset_stats()
    assert publish_branch(client, base, "main", main_files(final), "the final step", tip=base.commit).committed
    assert hub.stats().commits[base.repo]["main"] == 1
    holds(api, base, "main", main_files(final))


def test_a_copy_needs_its_source(client: Client, base: Base, final: tuple[TreeEntry, str]) -> None:
    before = list_branches(client, base.repo)
    with pytest.raises(HubError, match=r"model\.safetensors"):
        publish_branch(client, base, "main", main_files((final[0], base.commit)), "the final step", tip=base.commit)
    assert list_branches(client, base.repo) == before


def test_only_lfs_files_are_copied() -> None:
    with pytest.raises(ValueError, match="not in LFS"):
        BranchFile.copied(TreeEntry("config.json", 3, "0" * 40), "1" * 40)


# Others who write to the repo.


def test_somebody_elses_commit_is_named_and_kept(
    client: Client, base: Base, api: HfApi, files: list[BranchFile]
) -> None:
    old = push(api, base.repo, "step1", {"x": b"old"})
    newer = push(api, base.repo, "step1", {"x": b"newer"})
    for tip in (old, None):
        with pytest.raises(HubError, match="changed by alice") as caught:
            publish_branch(client, base, "step1", files, "step 1", tip=tip)
        assert newer in caught.value.what
    assert list_branches(client, base.repo)["step1"] == newer


def test_two_publishers_at_once(
    hub: RehearsalHub, client: Client, base: Base, api: HfApi, files: list[BranchFile], tmp_path: Path
) -> None:
    twin = Client(Endpoint(hub.url, "hf_alice"), clock=ManualClock(), quota_dir=tmp_path / "quota")
    barrier = threading.Barrier(2)

    def run(mine: Client) -> list[Published]:
        outcomes = []
        for step in range(8):
            barrier.wait(10)
            outcomes.append(publish_branch(mine, base, f"step{step}", files, "a step"))
        return outcomes

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, (client, twin)))
    assert hub.stats().commits[base.repo] == {f"step{step}": 1 for step in range(8)}
    for step, (ours, theirs) in enumerate(zip(*both, strict=True)):
        assert ours.commit == theirs.commit
        holds(api, base, f"step{step}", files)


def test_without_the_right_to_write(hub: RehearsalHub, base: Base, tmp_path: Path) -> None:
    mallory = Client(Endpoint(hub.url, "hf_mallory"), clock=ManualClock(), quota_dir=tmp_path / "quota")
    with pytest.raises(Refused) as caught:
        publish_branch(mallory, base, "step9", [BranchFile.of_bytes("x", b"x")], "mine")
    assert caught.value.status in (401, 403)
    assert caught.value.for_all
    assert "step9" not in list_branches(mallory, base.repo)


# Quotas of commits.


def test_a_quota_that_we_do_not_know_of_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    with RehearsalHub(tmp_path / "hub", faults=[{"commits_per_hour": 3}], clock=clock.now) as hub:
        client = Client(Endpoint(hub.url, "hf_alice"), clock=clock, quota_dir=tmp_path / "quota")
        client.api.create_repo("alice/m")
        start = clock.now()
        publish_steps(client, find_base(client, "alice/m"), 8)
        assert hub.stats().commits["alice/m"] == {f"step{step}": 1 for step in range(8)}
        assert 7200 <= clock.now() - start <= 7300


def test_a_quota_that_we_know_of_is_never_hit(tmp_path: Path) -> None:
    clock = ManualClock()
    with RehearsalHub(tmp_path / "hub", faults=[{"commits_per_hour": 3}], clock=clock.now) as hub:
        client = Client(Endpoint(hub.url, "hf_alice"), clock=clock, quota_dir=tmp_path / "quota")
        client.api.create_repo("alice/m")
        client.commits.set_limit("alice/m", 3)
        publish_steps(client, find_base(client, "alice/m"), 8, threads=4)
        assert hub.stats().requests["commit"] == 8


def publish_steps(client: Client, base: Base, count: int, threads: int = 1) -> None:
    def run(step: int) -> None:
        publish_branch(client, base, f"step{step}", [BranchFile.of_bytes("x", b"%d" % step)], "a step")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(count)))


# Lost answers that the rehearsal Hub's faults cannot express.


def test_a_504_that_is_applied_only_after_we_looked(
    client: Client, base: Base, api: HfApi, files: list[BranchFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HfApi.create_commit
    late: list[Callable[[], CommitInfo]] = []

    def slow(self: HfApi, *arguments: Any, **named: Any) -> CommitInfo:
        def commit() -> CommitInfo:
            return original(self, *arguments, **named)

        if not late:
            late.append(commit)
            raise Transient("HTTP 504")
        with ThreadPoolExecutor(1) as server:
            server.submit(late[0]).result()  # the first is applied now
        return commit()

    monkeypatch.setattr(HfApi, "create_commit", slow)
    assert publish_branch(client, base, "step1", files, "step 1").committed
    holds(api, base, "step1", files)


def test_an_interrupt_leaves_the_branch_untouched_or_complete(
    hub: RehearsalHub, base: Base, api: HfApi, files: list[BranchFile], tmp_path: Path
) -> None:
    class Interrupting(ManualClock):
        """Ctrl-C as soon as somebody waits."""

        def sleep_until(self, moment: float, stop: threading.Event | None = None) -> None:
            assert stop is not None
            stop.set()
            super().sleep_until(moment, stop)

    for route in ("create-branch", "preupload", "lfs-batch", "lfs-upload", "lfs-verify", "commit", "tree"):
        hub.inject([{"route": route, "status": 503}])
        client = Client(
            Endpoint(hub.url, "hf_alice"), stop=threading.Event(), clock=Interrupting(), quota_dir=tmp_path / "quota"
        )
        branch = f"at-{route}"
        different = [*files[:2], BranchFile.of_bytes("model.safetensors", branch.encode() * 999)]
        with pytest.raises(Interrupted):
            publish_branch(client, base, branch, different, "a step")
        hub.inject(None)
        Client(Endpoint(hub.url, "hf_alice"))  # without a stop event, for whoever looks at the Hub from here on
        tips = {found.name: found.target_commit for found in api.list_repo_refs(base.repo).branches}
        if tips.get(branch, base.commit) != base.commit:
            holds(api, base, branch, different)


def test_a_commit_that_never_gets_through(
    client: Client, base: Base, hub: RehearsalHub, files: list[BranchFile]
) -> None:
    hub.inject([{"route": "commit", "status": 504}])
    with pytest.raises(Unavailable, match="could not commit"):
        publish_branch(client, base, "step1", files, "step 1")
    assert list_branches(client, base.repo)["step1"] == base.commit


@pytest.mark.parametrize("count", [1, 3])
def test_the_branch_is_read_back(
    count: int, client: Client, base: Base, hub: RehearsalHub, files: list[BranchFile]
) -> None:
    hub.inject(
        [
            {
                "route": "tree",
                "nth": 1,
                "count": count,
                "status": 200,
                "body": "[]",
                "headers": {"Content-Type": "application/json"},
            }
        ]
    )
    if count == 1:  # the tree lags behind the commit
        assert publish_branch(client, base, "step1", files, "step 1").committed
        return
    with pytest.raises(HubError, match=r"does not hold what was sent: .* is missing"):
        publish_branch(client, base, "step1", files, "step 1")


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("route", ["create-branch", "preupload", "commit", "tree"])
def test_refusals_end_at_once(
    route: str, status: int, client: Client, base: Base, hub: RehearsalHub, files: list[BranchFile]
) -> None:
    code = {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
    hub.inject([{"route": route, "status": status, "body": {"error": "No."}, "headers": code}])
    with pytest.raises(Refused) as caught:
        publish_branch(client, base, f"{route}-{status}", files, "step 1")
    assert caught.value.status == status
    assert caught.value.for_all
    assert "request id" in caught.value.where
    assert hub.stats().requests[route] == 1


def test_the_token_is_nowhere(
    client: Client, base: Base, files: list[BranchFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publish_branch(client, base, "step1", files, "step 1")
    assert "hf_alice" not in caplog.text
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert all(b"hf_alice" not in file.read_bytes() for file in written)
