"""Trees, single paths and file contents, whole and in ranges."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from publish.rehearsal.server import RehearsalHub
from tests.rehearsal.conftest import Commit

DATA = bytes(range(256)) * 16


def test_regular_and_lfs_files_come_back_as_sent(api: HfApi, repo: str, commit: Commit) -> None:
    weights, card = os.urandom(300_000), b"---\nlicense: mit\n---\n# hello\n"
    commit({"README.md": card, "model.safetensors": weights})
    assert Path(api.hf_hub_download(repo, "README.md")).read_bytes() == card
    assert Path(api.hf_hub_download(repo, "model.safetensors")).read_bytes() == weights
    listed = {file.path: file for file in api.list_repo_tree(repo) if isinstance(file, RepoFile)}
    assert listed["model.safetensors"].lfs is not None
    assert listed["model.safetensors"].size == 300_000
    assert listed["README.md"].lfs is None


def test_snapshot_download_brings_a_branch(api: HfApi, repo: str, commit: Commit, tmp_path: Path) -> None:
    commit({"config.json": b"{}", "sub/model.safetensors": DATA})
    folder = Path(api.snapshot_download(repo, local_dir=tmp_path / "here"))
    assert (folder / "sub" / "model.safetensors").read_bytes() == DATA
    assert (folder / "config.json").read_bytes() == b"{}"


def test_a_long_tree_comes_in_pages(api: HfApi, repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({f"d/f{number:04}.txt": b"x" for number in range(1010)})
    page = web.get(f"/api/models/{repo}/tree/main?recursive=true")
    assert len(page.json()) == 1000
    assert 'rel="next"' in page.headers["link"]
    assert len(list(api.list_repo_tree(repo, "d"))) == 1010
    expanded = web.get(f"/api/models/{repo}/tree/main/d?expand=true").json()
    assert len(expanded) == 50
    assert expanded[0]["lastCommit"]["title"] == "m"


def test_the_last_commit_of_a_file_is_the_one_that_changed_it(api: HfApi, repo: str, commit: Commit) -> None:
    first = commit({"a.txt": b"1", "b.txt": b"1"})
    second = commit({"b.txt": b"2"})
    found = {file.path: file for file in api.list_repo_tree(repo, expand=True)}
    assert {path: found[path].last_commit.oid for path in ("a.txt", "b.txt")} == {"a.txt": first, "b.txt": second}


def test_a_tree_path_that_is_a_file_is_not_found(api: HfApi, repo: str, commit: Commit, hub: RehearsalHub) -> None:
    commit({"d/a.txt": b"1"})
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "d/a.txt"))
    files = HfFileSystem(endpoint=hub.url, token="hf_alice", skip_instance_cache=True)
    assert files.isfile(f"{repo}/d/a.txt")
    assert files.isdir(f"{repo}/d")
    assert files.read_bytes(f"{repo}/d/a.txt") == b"1"


def test_paths_that_do_not_exist_are_left_out(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"d/a.txt": b"1", "plus+and space.txt": b"2"})
    asked = ["d", "d/a.txt", "none", "../x", "plus+and space.txt"]
    assert [file.path for file in api.get_paths_info(repo, asked)] == ["d", "d/a.txt", "plus+and space.txt"]


def test_missing_repos_revisions_and_files_give_different_errors(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("alice/none")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("no-owner")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(repo, revision="none")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "none.txt")
    assert not api.file_exists(repo, "none.txt")
    assert api.file_exists(repo, ".gitattributes")


def test_a_missing_file_gives_the_commit_that_was_searched(api: HfApi, repo: str, web: httpx2.Client) -> None:
    answer = web.head(f"/{repo}/resolve/main/none.txt")
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert answer.headers["x-repo-commit"] == api.repo_info(repo).sha


RANGES = [
    ("bytes=10-19", 206, slice(10, 20), "bytes 10-19/4096"),
    ("bytes=4000-", 206, slice(4000, 4096), "bytes 4000-4095/4096"),
    ("bytes=-3", 206, slice(4093, 4096), "bytes 4093-4095/4096"),
    ("bytes=-9999", 206, slice(0, 4096), "bytes 0-4095/4096"),
    ("bytes=4095-9999", 206, slice(4095, 4096), "bytes 4095-4095/4096"),
    ("bytes=5-2", 200, slice(0, 4096), None),
    ("bytes=0-1,5-6", 200, slice(0, 4096), None),
    ("bytes=-", 200, slice(0, 4096), None),
]


@pytest.mark.parametrize(("path", "data"), [("model.safetensors", DATA), ("data.txt", b"0123456789abcdef" * 256)])
def test_ranges(repo: str, commit: Commit, web: httpx2.Client, path: str, data: bytes) -> None:
    commit({path: data})
    for header, status, part, content_range in RANGES:
        answer = web.get(f"/{repo}/resolve/main/{path}", headers={"range": header}, follow_redirects=True)
        assert (answer.status_code, answer.headers.get("content-range")) == (status, content_range)
        assert answer.content == data[part]
    beyond = web.get(f"/{repo}/resolve/main/{path}", headers={"range": "bytes=4096-"}, follow_redirects=True)
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */4096")


def test_an_lfs_file_is_redirected_with_its_digest_and_size(repo: str, commit: Commit, web: httpx2.Client) -> None:
    made = commit({"model.safetensors": DATA})
    for method in ("GET", "HEAD"):
        answer = web.request(method, f"/{repo}/resolve/main/model.safetensors")
        assert answer.status_code == 302
        assert (answer.headers["x-repo-commit"], answer.headers["x-linked-size"]) == (made, "4096")
        final = web.request(method, answer.headers["location"])
        assert final.headers["x-repo-commit"] == made
        assert final.headers["etag"] == answer.headers["x-linked-etag"]
        assert final.headers["content-length"] == "4096"
        assert "x-xet-hash" not in answer.headers


def test_a_signed_url_is_valid_for_one_object_only(repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({"model.safetensors": DATA, "other.safetensors": DATA[::-1]})
    location = web.get(f"/{repo}/resolve/main/model.safetensors").headers["location"]
    other = web.get(f"/{repo}/resolve/main/other.safetensors").headers["location"]
    path, query = location.split("?")
    assert web.get(other.split("?")[0] + "?" + query).status_code == 403
    assert web.get(f"{path}?{query[:-1]}x").status_code == 403
    assert web.get(path).status_code == 403
    assert httpx2.get(f"{str(web.base_url).rstrip('/')}{location}").content == DATA  # the signature is the right


def test_names_that_need_quoting(api: HfApi, repo: str, commit: Commit, hub: RehearsalHub) -> None:
    name = "ä b%20#?&+.txt"
    commit({name: b"1"})
    assert Path(api.hf_hub_download(repo, name)).read_bytes() == b"1"
    assert name in api.list_repo_files(repo)
    assert hub.url in hf_hub_url(repo, name, endpoint=hub.url)


def test_an_empty_file(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"empty.bin": b""})
    assert Path(api.hf_hub_download(repo, "empty.bin")).read_bytes() == b""
