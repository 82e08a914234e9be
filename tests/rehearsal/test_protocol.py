"""What stock huggingface_hub expects of a Hub, through the real client over loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from publish.rehearsal import RehearsalHub
from publish.rehearsal.server import RehearsalError


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path / "hub", part_size=1 << 20) as running:
        yield running


@pytest.fixture
def api(hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    made = HfApi(endpoint=hub.url, token="hf_alice")
    made.create_repo("alice/model")
    return made


CARD = b"---\nlicense: mit\n---\n# hello\n"


def add(api: HfApi, files: dict[str, bytes], branch: str = "main", parent: str | None = None) -> str:
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    made = api.create_commit(
        "alice/model", operations, commit_message="m", revision=branch, parent_commit=parent, num_threads=1
    )
    return str(made.oid)


def test_a_new_repo_holds_gitattributes_and_one_commit(api: HfApi) -> None:
    assert api.list_repo_files("alice/model") == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits("alice/model")] == ["initial commit"]


def test_creating_it_again_is_a_409_that_exist_ok_accepts(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("alice/model")
    assert api.create_repo("alice/model", exist_ok=True).repo_id == "alice/model"


def test_regular_and_lfs_files_come_back_as_sent(api: HfApi, tmp_path: Path) -> None:
    weights = os.urandom(300_000)
    add(api, {"README.md": CARD, "model.safetensors": weights})
    assert Path(api.hf_hub_download("alice/model", "README.md")).read_bytes() == CARD
    assert Path(api.hf_hub_download("alice/model", "model.safetensors")).read_bytes() == weights
    listed = {entry.path: entry for entry in api.list_repo_tree("alice/model")}
    assert listed["model.safetensors"].lfs is not None
    assert listed["README.md"].lfs is None


def test_a_large_file_comes_in_parts(api: HfApi, hub: RehearsalHub) -> None:
    weights = os.urandom((3 << 20) + 17)
    add(api, {"model.safetensors": weights})
    assert hub.stats().requests["lfs_complete"] == 1
    assert hub.stats().requests["lfs_upload"] == 4
    assert Path(api.hf_hub_download("alice/model", "model.safetensors")).read_bytes() == weights


def test_the_parent_of_a_commit_is_checked(api: HfApi) -> None:
    first = add(api, {"a.txt": b"1"})
    add(api, {"a.txt": b"2"}, parent=first)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since"):
        add(api, {"a.txt": b"3"}, parent=first)


def test_a_commit_creates_no_branch(api: HfApi) -> None:
    with pytest.raises(RevisionNotFoundError):
        add(api, {"a.txt": b"1"}, branch="step0")


def test_branches_start_where_they_are_told(api: HfApi) -> None:
    first = api.list_repo_commits("alice/model")[-1].commit_id
    add(api, {"a.txt": b"1"})
    api.create_branch("alice/model", branch="step0", revision=first)
    api.create_branch("alice/model", branch="copy")
    assert api.list_repo_files("alice/model", revision="step0") == [".gitattributes"]
    assert "a.txt" in api.list_repo_files("alice/model", revision="copy")
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/step0 already exists"):
        api.create_branch("alice/model", branch="step0")
    api.delete_branch("alice/model", branch="copy")
    assert {branch.name for branch in api.list_repo_refs("alice/model").branches} == {"main", "step0"}
    with pytest.raises(HfHubHTTPError, match="Cannot delete"):
        api.delete_branch("alice/model", branch="main")


def test_files_and_folders_are_deleted(api: HfApi) -> None:
    add(api, {"a.txt": b"1", "dir/b.txt": b"2", "dir/c.txt": b"3"})
    operations = [CommitOperationDelete("dir/", is_folder=True), CommitOperationDelete("a.txt")]
    api.create_commit("alice/model", operations, commit_message="delete")
    assert api.list_repo_files("alice/model") == [".gitattributes"]
    with pytest.raises(EntryNotFoundError):
        api.delete_file("none.txt", "alice/model")


def test_what_is_not_there_is_told_apart(api: HfApi) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("alice/none")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files("alice/model", revision="none")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("alice/model", "none.txt")
    assert not api.file_exists("alice/model", "none.txt")
    assert api.file_exists("alice/model", ".gitattributes")
    assert [entry.path for entry in api.get_paths_info("alice/model", [".gitattributes", "no"])] == [".gitattributes"]


def test_tags(api: HfApi) -> None:
    api.create_tag("alice/model", tag="v1", tag_message="first")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("alice/model", tag="v1")
    assert [tag.name for tag in api.list_repo_refs("alice/model").tags] == ["v1"]
    assert api.list_repo_files("alice/model", revision="v1") == [".gitattributes"]
    api.delete_tag("alice/model", tag="v1")
    assert api.list_repo_refs("alice/model").tags == []


def test_who_may_write(hub: RehearsalHub, api: HfApi) -> None:
    assert api.whoami()["name"] == "alice"
    for token, status in ((False, "401"), ("hf_bob", "403"), ("hf_read_alice", "403")):
        other = HfApi(endpoint=hub.url, token=token)
        with pytest.raises(HfHubHTTPError, match=status):
            other.create_branch("alice/model", branch="mine")


def test_a_private_repo_is_seen_by_its_owner_alone(hub: RehearsalHub, api: HfApi) -> None:
    api.create_repo("alice/secret", private=True)
    assert api.repo_info("alice/secret").private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token="hf_bob").repo_info("alice/secret")


def test_snapshot_download_brings_a_branch(api: HfApi, tmp_path: Path) -> None:
    add(api, {"config.json": b"{}", "model.safetensors": os.urandom(1000)})
    folder = Path(api.snapshot_download("alice/model", local_dir=tmp_path / "here"))
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        ".gitattributes",
        "config.json",
        "model.safetensors",
    }


def test_a_long_tree_comes_in_pages(api: HfApi) -> None:
    add(api, {f"f{number:04}.txt": b"x" for number in range(1100)})
    assert len(api.list_repo_files("alice/model")) == 1101


def test_a_restarted_server_serves_the_same(tmp_path: Path, api: HfApi, hub: RehearsalHub) -> None:
    commit = add(api, {"a.txt": b"1"})
    with RehearsalHub(hub.root) as again:
        assert HfApi(endpoint=again.url, token="hf_alice").repo_info("alice/model").sha == commit


def test_ranges_and_unknown_paths(hub: RehearsalHub, api: HfApi) -> None:
    add(api, {"model.safetensors": bytes(range(256)) * 10})
    session = huggingface_hub.get_session()
    url = f"{hub.url}/alice/model/resolve/main/model.safetensors"
    part = session.get(url, headers={"range": "bytes=10-19"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/2560"
    assert session.get(url, headers={"range": "bytes=-3"}, follow_redirects=True).content == bytes((253, 254, 255))
    assert session.get(url, headers={"range": "bytes=9999-"}, follow_redirects=True).status_code == 416
    unknown = session.get(f"{hub.url}/api/nothing")
    assert (unknown.status_code, "not served" in unknown.json()["error"]) == (404, True)


@pytest.mark.parametrize("path", ["../a", "/a", "a//b", ".git/config", "a/../b", "x\0y"])
def test_path_tricks_are_refused(hub: RehearsalHub, api: HfApi, path: str) -> None:
    line = '{"key":"header","value":{"summary":"m"}}\n'
    import json

    line += json.dumps({"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}})
    answer = huggingface_hub.get_session().post(
        f"{hub.url}/api/models/alice/model/commit/main", content=line, headers={"authorization": "Bearer hf_alice"}
    )
    assert answer.status_code == 400


def test_pages_show_a_card_without_running_it(hub: RehearsalHub, api: HfApi) -> None:
    add(
        api, {"README.md": b"---\nlicense: mit\n---\n# Hi\n<script>alert(1)</script>\n\n<details>\n\nx\n\n</details>\n"}
    )
    page = huggingface_hub.get_session().get(f"{hub.url}/alice/model").text
    assert "<script>" not in page
    assert "<details>" in page
    assert "<td>mit</td>" in page
    assert "alice/model" in huggingface_hub.get_session().get(hub.url).text


def test_it_serves_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="not loopback"):
        RehearsalHub(tmp_path, host="0.0.0.0")


def test_a_port_in_use_is_one_clear_error(hub: RehearsalHub, tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="cannot listen"):
        RehearsalHub(tmp_path / "other", port=int(hub.url.rsplit(":", 1)[1]))
