"""Commits are applied completely or not at all, in order, and are never lost."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from pathlib import Path

import httpx2
import pygit2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

from publish.rehearsal.server import RehearsalHub
from tests.rehearsal.conftest import Commit


def lines(*operations: tuple[str, dict[str, object]], header: dict[str, object] | None = None) -> bytes:
    head = ("header", {"summary": "m", "description": "", **(header or {})})
    return b"".join(json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in (head, *operations))


def file(path: str, content: bytes = b"x") -> tuple[str, dict[str, object]]:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


def test_a_stale_parent_is_a_412_with_the_hubs_text(api: HfApi, repo: str, commit: Commit) -> None:
    first = commit({"a.txt": b"1"})
    commit({"a.txt": b"2"}, parent=first)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page") as caught:
        commit({"a.txt": b"3"}, parent=first)
    assert caught.value.response.status_code == 412


def test_a_commit_creates_no_branch(commit: Commit) -> None:
    with pytest.raises(RevisionNotFoundError):
        commit({"a.txt": b"1"}, branch="step0")


def test_one_bad_line_leaves_the_branch_as_it_was(api: HfApi, repo: str, web: httpx2.Client) -> None:
    before = api.repo_info(repo).sha
    missing = ("lfsFile", {"path": "w.bin", "algo": "sha256", "oid": "0" * 64, "size": 3})
    for bad in (missing, ("deletedFile", {"path": "none.txt"}), ("fiel", {"path": "b"}), file("../b")):
        answer = web.post(f"/api/models/{repo}/commit/main", content=lines(file("good.txt"), bad))
        assert answer.status_code in (400, 404, 422)
        assert answer.json()["error"] == answer.headers["x-error-message"]
    assert web.post(f"/api/models/{repo}/commit/main", content=b"no json\n").status_code == 400
    assert web.post(f"/api/models/{repo}/commit/main", content=lines(header={"summary": " "})).status_code == 400
    assert api.repo_info(repo).sha == before


def test_deleting_a_missing_file_is_an_entry_not_found(api: HfApi, repo: str) -> None:
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(repo, [CommitOperationDelete("none.txt", is_folder=False)], commit_message="m")


def test_files_and_folders_are_deleted(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a.txt": b"1", "dir/b.txt": b"2", "dir/c/d.txt": b"3", "directory.txt": b"4"})
    operations = [CommitOperationDelete("dir/"), CommitOperationDelete("a.txt")]
    api.create_commit(repo, operations, commit_message="delete")
    assert api.list_repo_files(repo) == [".gitattributes", "directory.txt"]


def test_a_file_may_take_the_place_of_a_folder_and_back(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a/b.txt": b"1"})
    commit({"a": b"2"})
    assert api.list_repo_files(repo) == [".gitattributes", "a"]
    commit({"a/b.txt": b"3"})
    assert api.list_repo_files(repo) == [".gitattributes", "a/b.txt"]


WEIGHTS = bytes(range(256)) * 800


@pytest.fixture
def stepped(api: HfApi, repo: str, commit: Commit) -> dict[str, str]:
    """A repo with a branch `step1` that has an LFS and a regular file, and a branch `empty` that has neither."""
    api.create_branch(repo, branch="empty")
    api.create_branch(repo, branch="step1")
    made = commit({"model.safetensors": WEIGHTS, "config.json": b"{}"}, branch="step1")
    api.create_tag(repo, tag="v1", revision="step1")
    return {"branch": "step1", "commit": made, "tag": "v1"}


@pytest.mark.parametrize("revision", ["branch", "commit", "tag"])
def test_files_are_copied_from_another_revision_without_an_upload(
    hub: RehearsalHub, api: HfApi, repo: str, stepped: dict[str, str], revision: str
) -> None:
    source = stepped[revision]
    hub.reset_stats()
    operations = [
        CommitOperationCopy("model.safetensors", "model.safetensors", src_revision=source),
        CommitOperationCopy("model.safetensors", "again/other.safetensors", src_revision=source),
        CommitOperationCopy("config.json", "config.json", src_revision=source),
        CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n"),
    ]
    parent = api.repo_info(repo, revision="empty").sha
    api.create_commit(repo, operations, commit_message="copy", revision="empty", parent_commit=parent)
    assert hub.stats().commits == {repo: {"empty": 1}}
    assert hub.stats().bytes_in < 4000
    assert not [route for route in hub.stats().requests if route.startswith(("lfs-", "xet-"))]
    paths = ["model.safetensors", "again/other.safetensors", "config.json"]
    copies = {file.path: file for file in api.get_paths_info(repo, paths, revision="empty")}
    original = api.get_paths_info(repo, ["model.safetensors"], revision="step1")[0]
    for path in paths[:2]:
        assert (copies[path].blob_id, copies[path].size, copies[path].lfs) == (
            original.blob_id,
            len(WEIGHTS),
            original.lfs,
        )
    assert copies["config.json"].lfs is None
    api.delete_branch(repo, branch="step1")  # a copy does not depend on its source
    api.delete_tag(repo, tag="v1")
    for path, content in zip(paths, (WEIGHTS, WEIGHTS, b"{}"), strict=True):
        assert Path(api.hf_hub_download(repo, path, revision="empty")).read_bytes() == content


@pytest.mark.parametrize(
    ("path", "revision", "error", "message"),
    [
        ("none.safetensors", "step1", EntryNotFoundError, "Cannot copy none.safetensors at revision step1"),
        ("model.safetensors", "empty", EntryNotFoundError, "Cannot copy model.safetensors at revision empty"),
        ("model.safetensors", "step2", RevisionNotFoundError, "Invalid rev id: step2"),
    ],
)
def test_a_copy_of_a_missing_file_is_refused(
    api: HfApi, repo: str, stepped: dict[str, str], path: str, revision: str, error: type[Exception], message: str
) -> None:
    before = api.repo_info(repo, revision="empty").sha
    copies = [
        CommitOperationCopy("config.json", "config.json", src_revision="step1"),
        CommitOperationCopy(path, "copy.safetensors", src_revision=revision),
    ]
    with pytest.raises(error, match=message):
        api.create_commit(repo, copies, commit_message="copy", revision="empty")
    assert api.repo_info(repo, revision="empty").sha == before


def test_an_lfs_object_of_another_repo_cannot_be_committed(
    api: HfApi, repo: str, stepped: dict[str, str], web: httpx2.Client
) -> None:
    """A copy is an lfsFile line without a size: it must not reach an object that was uploaded to another repo."""
    other = str(api.create_repo(f"{repo}-other").repo_id)
    line = ("lfsFile", {"path": "w.bin", "algo": "sha256", "oid": hashlib.sha256(WEIGHTS).hexdigest()})
    answer = web.post(f"/api/models/{other}/commit/main", content=lines(line))
    assert (answer.status_code, "a file that does not exist" in answer.json()["error"]) == (400, True)
    assert api.list_repo_files(other) == [".gitattributes"]
    assert web.post(f"/api/models/{repo}/commit/main", content=lines(line)).status_code == 200


def test_a_file_that_was_uploaded_by_xet_can_be_copied(
    hub: RehearsalHub, api: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    (tmp_path / "w.safetensors").write_bytes(WEIGHTS)
    api.create_branch(repo, branch="step1")
    api.upload_file(
        path_or_fileobj=tmp_path / "w.safetensors", path_in_repo="w.safetensors", repo_id=repo, revision="step1"
    )
    hub.reset_stats()
    copy = CommitOperationCopy("w.safetensors", "w.safetensors", src_revision="step1")
    api.create_commit(repo, [copy], commit_message="copy")
    assert "xet-token" not in hub.stats().requests
    assert Path(api.hf_hub_download(repo, "w.safetensors")).read_bytes() == WEIGHTS


def test_a_commit_of_invalid_metadata_is_refused(api: HfApi, repo: str, web: httpx2.Client) -> None:
    card = b"---\nlicense: not-a-license\n---\n"
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
    answer = web.post(f"/api/models/{repo}/commit/main", content=lines(file("README.md", card)))
    assert (answer.status_code, "license" in answer.json()["error"]) == (400, True)


def test_of_many_commits_with_one_parent_exactly_one_lands(api: HfApi, repo: str) -> None:
    parent = api.repo_info(repo).sha
    outcomes: list[str] = []

    def push(number: int) -> None:
        operations = [CommitOperationAdd(f"{number}.txt", b"x")]
        try:
            api.create_commit(repo, operations, commit_message="m", parent_commit=parent)
            outcomes.append("landed")
        except HfHubHTTPError as error:
            outcomes.append(str(error.response.status_code))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["412"] * 7 + ["landed"]
    assert len(api.list_repo_commits(repo)) == 2


def test_concurrent_commits_without_parent_all_survive(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    def push(number: int) -> None:
        api.create_commit(repo, [CommitOperationAdd(f"{number}.txt", b"x")], commit_message="m")

    threads = [threading.Thread(target=push, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.list_repo_files(repo)) == 13
    assert len(api.list_repo_commits(repo)) == 13
    assert hub.stats().commits == {repo: {"main": 12}}


def test_what_is_stored_is_git(hub: RehearsalHub, api: HfApi, repo: str, commit: Commit) -> None:
    made = commit({"a.txt": b"1", "w.safetensors": b"\0" * 3000})
    git = pygit2.Repository(str(hub.root / "repos" / "models" / f"{repo}.git"))
    found = git[made]
    assert (found.message, found.author.name) == ("m", "alice")
    assert found.tree["a.txt"].data == b"1"
    assert found.tree["w.safetensors"].data.startswith(b"version https://git-lfs")
    assert str(git.references["refs/heads/main"].target) == made


def test_a_pull_request_leaves_main_alone(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    main = api.repo_info(repo).sha
    bob = HfApi(endpoint=hub.url, token="hf_bob")
    operations = [CommitOperationAdd("w.safetensors", b"\0" * 2000)]
    made = bob.create_commit(repo, operations, commit_message="m", create_pr=True)
    assert made.pr_revision == "refs/pr/1"
    assert api.repo_info(repo).sha == main
    assert "w.safetensors" in api.list_repo_files(repo, revision="refs/pr/1")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [pull_request.ref for pull_request in refs.pull_requests or ()] == ["refs/pr/1"]


PATHS = ["../a", "/a", "a//b", ".git/config", "a/../b", "x\0y", "a/.GIT/b", "a\\..\\b", "", "a/", "x" * 300]


@pytest.mark.parametrize("path", PATHS)
def test_unsafe_paths_are_refused(repo: str, web: httpx2.Client, path: str) -> None:
    answer = web.post(f"/api/models/{repo}/commit/main", content=lines(file(path)))
    assert answer.status_code == 422


def test_case_matters(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a.txt": b"1", "A.txt": b"2"})
    assert api.list_repo_files(repo) == [".gitattributes", "A.txt", "a.txt"]
    assert not api.repo_exists(repo.replace("model", "Model"))


def test_lines_are_read_however_they_are_cut(api: HfApi, repo: str, web: httpx2.Client) -> None:
    body = lines(file("a.txt", b"a" * 1000), file("b.txt", b"b"))
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    answer = web.post(f"/api/models/{repo}/commit/main", content=iter(pieces))
    assert answer.status_code == 200
    assert Path(api.hf_hub_download(repo, "a.txt")).read_bytes() == b"a" * 1000
    with pytest.raises(BadRequestError):
        api.create_commit(repo, [CommitOperationAdd("c.txt", b"x")], commit_message=" ")
