"""A small file, whole, checked against what the tree says of it."""

from __future__ import annotations

import hashlib
import re

from publish.errors import HubError
from publish.wire.client import Client
from publish.wire.failures import Refused, Transient
from publish.wire.ranges import RemoteFile
from publish.wire.repo import RepoType, TreeEntry, git_blob_sha1

_BLOB = re.compile(r'"([0-9a-f]{40})"')


def fetch_file(client: Client, repo: str, commit: str, entry: TreeEntry, *, repo_type: RepoType = "model") -> bytes:
    """The bytes of `entry`, proven by its git blob sha1 or its LFS sha256: 1 request, 2 for an LFS file.

    Raises:
        HubError: the bytes are not those of the listing, however often read; or the failures of :meth:`Client.call`.
    """
    remote = RemoteFile(client, repo, commit, entry.path, entry.size, repo_type=repo_type)

    def once() -> bytes:
        content = remote.read(0, entry.size)
        if entry.lfs_sha256 is not None:
            right = hashlib.sha256(content).hexdigest() == entry.lfs_sha256
        else:
            right = git_blob_sha1(content) == entry.oid
        if not right:
            raise Transient(f"{entry.path} has other bytes than the Hub lists", where=remote.url)
        return content

    return client.call(f"reading {entry.path} of {repo}", once)


def fetch_text_if_there(
    client: Client, repo: str, commit: str, path: str, *, limit: int = 16 << 20, repo_type: RepoType = "model"
) -> bytes | None:
    """The bytes of a file that may not exist and is not in LFS; None when it does not exist. One request.

    Proven by the ETag, which is the git blob's sha1 on a Hub (facts/hub-protocol.md, "resolve"); wrong bytes are
    read again.

    Raises:
        HubError: larger than `limit`, or the failures of :meth:`Client.call`.
    """
    url = RemoteFile(client, repo, commit, path, 0, repo_type=repo_type).url

    def once() -> bytes:
        with client.session().stream("GET", url, headers=client.headers(url)) as response:
            client.check(response)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise HubError(f"{path} is larger than {limit} bytes", url, "look at the file on the Hub")
            _check_etag(response.headers.get("etag", ""), bytes(content), url)
        return bytes(content)

    try:
        return client.call(f"reading {path} of {repo}", once)
    except Refused as error:
        if error.status == 404 and error.code == "EntryNotFound":
            return None
        raise


def _check_etag(etag: str, content: bytes, url: str) -> None:
    """Raise Transient where the ETag is a git blob's id, and not of these bytes."""
    found = _BLOB.fullmatch(etag.removeprefix("W/"))
    if found is not None and found[1] != git_blob_sha1(content):
        raise Transient(f"{len(content)} bytes that are not those of the ETag", where=url)
