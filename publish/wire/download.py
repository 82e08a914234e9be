"""A small file, whole, checked against what the tree says of it."""

from __future__ import annotations

import hashlib

from publish.errors import HubError
from publish.wire.client import Client
from publish.wire.failures import Refused
from publish.wire.ranges import RemoteFile
from publish.wire.repo import RepoType, TreeEntry, git_blob_sha1


def fetch_file(client: Client, repo: str, commit: str, entry: TreeEntry, *, repo_type: RepoType = "model") -> bytes:
    """The bytes of `entry`, proven by its git blob sha1 or its LFS sha256: 1 request, 2 for an LFS file.

    Raises:
        HubError: the bytes are not those of the listing, or the failures of :meth:`Client.call`.
    """
    remote = RemoteFile(client, repo, commit, entry.path, entry.size, repo_type=repo_type)
    content = remote.read(0, entry.size)
    if entry.lfs_sha256 is not None:
        right = hashlib.sha256(content).hexdigest() == entry.lfs_sha256
    else:
        right = git_blob_sha1(content) == entry.oid
    if not right:
        fix = "read it again; if it stays, a cache between here and the Hub is broken"
        raise HubError(f"{entry.path} has other bytes than the Hub lists", remote.url, fix)
    return content


def fetch_text_if_there(
    client: Client, repo: str, commit: str, path: str, *, limit: int = 16 << 20, repo_type: RepoType = "model"
) -> bytes | None:
    """The bytes of a file that may not exist and is not in LFS; None when it does not exist. One request.

    For files whose content is proven otherwise (it names the commits and digests that it is compared with).

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
        return bytes(content)

    try:
        return client.call(f"reading {path} of {repo}", once)
    except Refused as error:
        if error.status == 404 and error.code == "EntryNotFound":
            return None
        raise
