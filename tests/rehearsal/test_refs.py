"""Branches, tags and history."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RevisionNotFoundError

from tests.rehearsal.conftest import Commit


def test_a_new_repo_has_one_commit_with_gitattributes(api: HfApi, repo: str) -> None:
    assert api.list_repo_files(repo) == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["initial commit"]


def test_a_branch_starts_at_the_revision_that_is_given(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a.txt": b"1"})
    first = api.list_repo_commits(repo)[-1].commit_id
    api.create_branch(repo, branch="step0", revision=first)
    api.create_branch(repo, branch="copy")
    assert api.list_repo_files(repo, revision="step0") == [".gitattributes"]
    assert "a.txt" in api.list_repo_files(repo, revision="copy")
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(repo, branch="late", revision="nowhere")
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/step0 already exists") as caught:
        api.create_branch(repo, branch="step0")
    assert caught.value.response.status_code == 409
    api.create_branch(repo, branch="step0", exist_ok=True)


def test_main_and_missing_branches_cannot_be_deleted(api: HfApi, repo: str) -> None:
    api.create_branch(repo, branch="a/b")
    api.delete_branch(repo, branch="a/b")
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main") as caught:
        api.delete_branch(repo, branch="main")
    assert caught.value.response.status_code == 403
    with pytest.raises(RevisionNotFoundError, match="Invalid rev id"):
        api.delete_branch(repo, branch="a/b")


NAMES = [
    "a..b",
    "a b",
    "-x",
    "refs/pr/3",
    "refs/heads/x",
    "a~1",
    "x.lock",
    "a//b",
    "/a",
    ".a",
    "a/.b",
    "a" * 40,
    "HEAD",
]


@pytest.mark.parametrize("name", NAMES)
def test_invalid_branch_names_are_refused(api: HfApi, repo: str, name: str) -> None:
    with pytest.raises(BadRequestError, match="Invalid reference for a branch"):
        api.create_branch(repo, branch=name)


def test_a_branch_under_a_branch_is_a_409_not_a_crash(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_branch(repo, branch="main/sub")
    assert caught.value.response.status_code == 409


def test_tags(api: HfApi, repo: str, commit: Commit) -> None:
    first = commit({"a.txt": b"1"})
    api.create_tag(repo, tag="v1", tag_message="first")
    api.create_tag(repo, tag="v0", revision="main")
    commit({"a.txt": b"2"})
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag(repo, tag="v1")
    assert caught.value.response.status_code == 409
    assert {tag.name: tag.target_commit for tag in api.list_repo_refs(repo).tags} == {"v0": first, "v1": first}
    assert api.repo_info(repo, revision="v1").sha == first
    api.delete_tag(repo, tag="v1")
    assert [tag.name for tag in api.list_repo_refs(repo).tags] == ["v0"]


def test_history_comes_in_pages(api: HfApi, repo: str, commit: Commit, web: httpx2.Client) -> None:
    made = [commit({"a.txt": bytes([65 + number])}) for number in range(5)]
    page = web.get(f"/api/models/{repo}/commits/main", params={"limit": "2"})
    assert [info["id"] for info in page.json()] == [made[4], made[3]]
    following = web.get(page.links["next"]["url"]).json()
    assert [info["id"] for info in following] == [made[2], made[1]]
    assert len(api.list_repo_commits(repo)) == 6
    assert following[0]["authors"] == [{"user": "alice"}]


def test_short_ids_and_pull_request_revisions_are_found(api: HfApi, repo: str, commit: Commit) -> None:
    made = commit({"a.txt": b"1"})
    assert api.repo_info(repo, revision=made[:8]).sha == made
    for missing in ("nowhere", "0" * 40, "refs/pr/9", "../main", "a\0b"):
        with pytest.raises(RevisionNotFoundError):
            api.repo_info(repo, revision=missing)


def test_squashing_keeps_the_files_and_drops_the_history(api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a.txt": b"1"})
    commit({"b.txt": b"2"})
    api.super_squash_history(repo, commit_message="one")
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["one"]
    assert api.list_repo_files(repo) == [".gitattributes", "a.txt", "b.txt"]
