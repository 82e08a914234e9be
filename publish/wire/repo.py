"""What a repo on a Hub holds: its branches, the files of a commit, the history of a branch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from publish.errors import HubError
from publish.wire.client import Client

RepoType = Literal["model", "dataset"]


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file of a commit. `oid` is the git blob's sha1: of the content, or of the LFS pointer."""

    path: str
    size: int
    oid: str
    lfs_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit in a branch's history."""

    id: str
    title: str
    authors: tuple[str, ...]
    date: str


def git_blob_sha1(content: bytes) -> str:
    """The id that git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def list_branches(client: Client, repo: str, *, repo_type: RepoType = "model") -> dict[str, str]:
    """Branch -> commit id, in one request (refs are not paginated).

    Raises:
        HubError: no such repo, no access, no connection.
    """
    refs = client.call(f"listing the branches of {repo}", lambda: client.api.list_repo_refs(repo, repo_type=repo_type))
    return {branch.name: branch.target_commit for branch in refs.branches}


def list_tree(client: Client, repo: str, revision: str, *, repo_type: RepoType = "model") -> tuple[TreeEntry, ...]:
    """All files of a revision, sorted by path; a request per 1000 entries.

    Raises:
        HubError: no such repo or revision, no access, no connection.
    """
    from huggingface_hub.hf_api import RepoFolder

    entries = client.call(
        f"listing the files of {repo}@{revision}",
        lambda: list(client.api.list_repo_tree(repo, recursive=True, revision=revision, repo_type=repo_type)),
    )
    files = (
        TreeEntry(entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if not isinstance(entry, RepoFolder)
    )
    return tuple(sorted(files, key=lambda entry: entry.path))


def first_commit(client: Client, repo: str, *, repo_type: RepoType = "model") -> str:
    """The id of the first commit of `main`: where a branch starts that shall inherit nothing.

    Raises:
        HubError: no such repo, no access, no connection; or a repo without commits.
    """
    commits = client.call(
        f"listing the commits of {repo}",
        lambda: list(client.api.list_repo_commits(repo, repo_type=repo_type)),
    )
    if not commits:
        raise HubError("the repo has no commits", repo, "commit something to its main branch first")
    return str(commits[-1].commit_id)


def latest_commits(
    client: Client, repo: str, revision: str, *, repo_type: RepoType = "model"
) -> tuple[CommitRecord, ...]:
    """The newest commits of a revision, newest first: the first page only, in one request.

    Raises:
        HubError: no such repo or revision, no access, no connection, or an answer that is no list of commits.
    """
    path = f"/api/{repo_type}s/{repo}/commits/{quote(revision, safe='')}"
    answer = client.get(path)
    try:
        return tuple(_commit(item) for item in answer)
    except (KeyError, TypeError) as error:
        fix = "check that HF_ENDPOINT is a Hub"
        raise HubError("the answer is no list of commits", client.endpoint.url + path, fix) from error


def _commit(item: Any) -> CommitRecord:
    authors = tuple(str(author.get("user", "?")) for author in item.get("authors", ()))
    return CommitRecord(str(item["id"]), str(item.get("title", "")), authors, str(item.get("date", "")))
