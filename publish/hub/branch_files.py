"""The files that a branch shall hold, the operations of a commit that puts them there, and how a tree differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from publish.errors import HubError, StorageError
from publish.hub.reads import TreeEntry, git_blob_sha1
from publish.text import some

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

GITATTRIBUTES = ".gitattributes"  # made by the Hub in every repo's first commit; stays unless a commit names it
NAMED = 5  # so many differences are spelled out


@dataclass(frozen=True, slots=True)
class BranchFile:
    """A file that a branch shall hold: its path in the repo, its size and sha256, and where its bytes come from.

    `content`: the bytes, or a local file that has them. None for a file that is on the Hub already: it is copied from
    the commit `copied_from`, or stays as it is on the branch. Then `oid` is its git blob id.
    """

    path: str
    content: Path | bytes | None = field(repr=False)
    size: int
    sha256: str
    oid: str = ""
    copied_from: str | None = None

    @classmethod
    def of_bytes(cls, path: str, content: bytes) -> BranchFile:
        """A small file that is in memory; hashed here."""
        return cls(path, content, len(content), hashlib.sha256(content).hexdigest())

    @classmethod
    def kept(cls, entry: TreeEntry) -> BranchFile:
        """A file that the branch has and keeps; it is not sent."""
        return cls(entry.path, None, entry.size, entry.lfs_sha256 or "", entry.oid)

    @classmethod
    def copied(cls, entry: TreeEntry, revision: str) -> BranchFile:
        """An LFS file that the commit copies from `revision` (a commit id) of the same repo; no byte is sent or read.

        Raises:
            ValueError: the file is not in LFS; the Hub copies no other.
        """
        if entry.lfs_sha256 is None:
            raise ValueError(f"{entry.path} is not in LFS")
        return cls(entry.path, None, entry.size, entry.lfs_sha256, entry.oid, revision)

    def git_sha1(self) -> str:
        """The git blob id of the content; reads it whole, so only for files that are not in LFS.

        Raises:
            StorageError: the local file cannot be read.
        """
        if self.content is None:
            return self.oid
        if isinstance(self.content, bytes):
            return git_blob_sha1(self.content)
        try:
            return git_blob_sha1(self.content.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error}", self.content, "convert the step again") from error

    def check(self) -> None:
        """Whether the local file is still there and of its size.

        Raises:
            StorageError: it is not.
        """
        if not isinstance(self.content, Path):
            return
        try:
            size = self.content.stat().st_size
        except OSError as error:
            raise StorageError(f"{self.path} is gone: {error}", self.content, "convert the step again") from error
        if size != self.size:
            what = f"{self.path} has {size} bytes, had {self.size} when it was written"
            raise StorageError(what, self.content, "convert the step again")


def by_path(files: Iterable[BranchFile], where: str) -> dict[str, BranchFile]:
    """Path -> file.

    Raises:
        HubError: no files, or two of one path.
    """
    wanted: dict[str, BranchFile] = {}
    for file in files:
        if file.path in wanted:
            raise HubError(f"{file.path} is named twice", where, "name every file of a branch once")
        wanted[file.path] = file
    if not wanted:
        raise HubError("a branch without files", where, "publish at least a config and weights")
    return wanted


def surplus(entries: Iterable[TreeEntry], wanted: Mapping[str, BranchFile]) -> tuple[str, ...]:
    """Paths on the Hub that the branch shall not have."""
    return tuple(entry.path for entry in entries if entry.path not in wanted and entry.path != GITATTRIBUTES)


def differences(entries: Iterable[TreeEntry], wanted: Mapping[str, BranchFile]) -> tuple[str, ...]:
    """How a commit's files differ from those wanted: paths, sizes, digests. Empty: they do not."""
    listed = {entry.path: entry for entry in entries}
    found = [f"{path} is surplus" for path in surplus(listed.values(), wanted)]
    for path, file in wanted.items():
        entry = listed.get(path)
        if entry is None:
            found.append(f"{path} is missing")
        elif entry.size != file.size:
            found.append(f"{path} has {entry.size} bytes, not {file.size}")
        elif entry.lfs_sha256 is not None:
            if entry.lfs_sha256 != file.sha256:
                found.append(f"{path} has sha256 {entry.lfs_sha256[:12]}, not {file.sha256[:12]}")
        elif entry.oid != file.git_sha1():
            found.append(f"{path} has other bytes (blob {entry.oid[:12]})")
    return tuple(found)


def spelled(found: tuple[str, ...]) -> str:
    """The first few differences and how many more."""
    return some(found, NAMED, "; ")


def additions(files: Iterable[BranchFile]) -> list[CommitOperationAdd]:
    """What a commit adds: the files whose content is here."""
    from huggingface_hub import CommitOperationAdd

    added = []
    for file in files:
        if file.content is None:
            continue
        addition = CommitOperationAdd(file.path, file.content)
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # hashed while it was written: once is enough
        added.append(addition)
    return added


def copies(files: Iterable[BranchFile]) -> list[CommitOperationCopy]:
    """What a commit copies from another revision."""
    from huggingface_hub import CommitOperationCopy

    return [
        CommitOperationCopy(file.path, file.path, src_revision=file.copied_from)
        for file in files
        if file.copied_from is not None
    ]


def deletions(paths: Iterable[str]) -> list[CommitOperationDelete]:
    """What a commit deletes."""
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path, is_folder=False) for path in paths]
