"""What a repo on a Hub holds: its branches, the files of a commit, the history of a branch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urljoin

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.endpoint import origin_of

RepoType = Literal["model", "dataset"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]*)>\s*(?:;[^,<]*)*;\s*rel\s*=\s*"?next"?', re.IGNORECASE)
_FIX = "check that HF_ENDPOINT is a Hub; if it is, report the answer to those who run it"


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file of a commit. `oid` is the sha1 of the git blob: of the content, or of the LFS pointer."""

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
    """Branch -> commit id, in one request: refs are not paginated.

    Raises:
        HubError: no such repo, no access, no connection, or an answer that is not a list of branches.
    """
    client.check_repo_id(repo)
    what = f"listing the branches of {repo}"
    path = f"/api/{repo_type}s/{repo}/refs"
    answer = client.get(path)
    branches = answer.get("branches") if isinstance(answer, dict) else None
    if not isinstance(branches, list):
        raise _malformed(what, "the answer is not a list of branches", client.endpoint.url + path)
    tips: dict[str, str] = {}
    for branch in branches:
        name, commit = (branch.get(key) if isinstance(branch, dict) else None for key in ("name", "targetCommit"))
        if not (isinstance(name, str) and name and isinstance(commit, str) and commit) or name in tips:
            raise _malformed(what, f"the list has the branch {str(branch)[:200]}", client.endpoint.url + path)
        tips[name] = commit
    return tips


def list_tree(client: Client, repo: str, revision: str, *, repo_type: RepoType = "model") -> tuple[TreeEntry, ...]:
    """All files of a revision, sorted by path; a request per 1000 entries.

    Raises:
        HubError: no such repo or revision, no access, no connection; or an answer that is not such a list: entries
            without a size or a digest, a path that occurs twice, sizes that contradict each other.
    """
    client.check_repo_id(repo)
    what = f"listing the files of {repo}@{revision}"
    path = f"/api/{repo_type}s/{repo}/tree/{quote(revision, safe='')}"
    found: dict[str, TreeEntry] = {}
    for item in _pages(client, path, {"recursive": "true", "expand": "false"}, what):
        if item.get("type") == "directory":
            continue
        entry = _tree_entry(item)
        if entry is None or entry.path in found:
            raise _malformed(what, f"the list has the entry {str(item)[:200]}", client.endpoint.url + path)
        found[entry.path] = entry
    return tuple(found[name] for name in sorted(found))


def _tree_entry(item: dict[str, Any]) -> TreeEntry | None:
    """A file of a tree; None if the entry has no path, size or digest, or contradicts itself."""
    path, size, oid, lfs = (item.get(key) for key in ("path", "size", "oid", "lfs"))
    if not (isinstance(path, str) and path and type(size) is int and size >= 0 and isinstance(oid, str) and oid):
        return None
    if lfs is None:
        return TreeEntry(path, size, oid)
    digest = lfs.get("oid", lfs.get("sha256")) if isinstance(lfs, dict) else None
    if not (isinstance(digest, str) and _SHA256.fullmatch(digest)) or lfs.get("size", size) != size:
        return None
    return TreeEntry(path, size, oid, digest)


def first_commit(client: Client, repo: str, *, repo_type: RepoType = "model") -> str:
    """The id of the first commit of `main`. A branch that starts there inherits nothing of later commits.

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
        HubError: no such repo or revision, no access, no connection, or an answer that is not a list of commits.
    """
    what = f"listing the commits of {repo}@{revision}"
    path = f"/api/{repo_type}s/{repo}/commits/{quote(revision, safe='')}"
    answer = client.get(path)
    try:
        return tuple(_commit(item) for item in answer)
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(what, "the answer is not a list of commits", client.endpoint.url + path) from error


def _commit(item: Any) -> CommitRecord:
    authors = tuple(str(author.get("user", "?")) for author in item.get("authors", ()))
    return CommitRecord(str(item["id"]), str(item.get("title", "")), authors, str(item.get("date", "")))


def _pages(client: Client, path: str, params: Mapping[str, str], what: str) -> Iterator[dict[str, Any]]:
    """The objects of all pages of the list at an API path, in order; a request per page.

    A page is a JSON array, and its ``Link`` header names the next one (RFC 8288). huggingface_hub would follow it to
    any host, with our token (`huggingface_hub/utils/_pagination.py`).

    Raises:
        HubError: a page is not a list of objects, or leads to another server or in a circle; or the failures of
            :meth:`Client.call`.
    """
    url: str | None = client.endpoint.url + path
    seen: set[str] = set()
    while url is not None:
        if url in seen or origin_of(url) != client.endpoint.origin:
            target = "in a circle" if url in seen else "to another server"
            raise _malformed(what, f"the pages of the list lead {target}", url)
        seen.add(url)
        items, next_page = _page(client, url, params if len(seen) == 1 else None, what)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise _malformed(what, "the answer is not a list of objects", url)
        yield from items
        url = urljoin(url, next_page) if next_page else None


def _page(client: Client, url: str, params: Mapping[str, str] | None, what: str) -> tuple[Any, str | None]:
    def once() -> tuple[Any, str | None]:
        response = client.session().get(url, params=params, headers=client.headers(url))
        client.check(response)
        found = _NEXT.search(response.headers.get("link", ""))
        return client.document(response), found[1] if found else None

    return client.call(what, once)


def _malformed(what: str, answer: str, where: str) -> HubError:
    return HubError(f"{what}: {answer}", where, _FIX)
