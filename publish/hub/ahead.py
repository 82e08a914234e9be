"""The large files of a branch, sent before its commit: they count as no commit, and wait for one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from publish.hub.branchfile import BranchFile
from publish.wire.client import Client

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


def additions(files: Iterable[BranchFile]) -> list[CommitOperationAdd]:
    """What a commit adds; files that stay as they are add nothing."""
    from huggingface_hub import CommitOperationAdd

    added = []
    for file in files:
        if file.content is None:
            continue
        addition = CommitOperationAdd(file.path, file.content)
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # hashed while it was written: once is enough
        added.append(addition)
    return added


def upload_ahead(client: Client, repo: str, files: Iterable[BranchFile]) -> None:
    """Send the bytes of those ``files`` that go to LFS. The commit, from any machine, finds them there.

    Raises:
        HubError: the Hub refuses, or cannot be reached.
    """
    added = additions(files)

    def send() -> None:
        client.api.preupload_lfs_files(repo, added, revision="main", free_memory=False)

    client.call(f"uploading to {repo} ahead of the commit", send)
