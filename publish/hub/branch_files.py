"""The files that a branch shall hold, how a commit's tree differs from them, and the commit operations for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from publish.errors import HubError, StorageError
from publish.hub.reads import TreeEntry, git_blob_sha1

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

GITATTRIBUTES = ".gitattributes"  # in the first commit of every repo; it stays unless a file replaces it


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
        """A small file in memory; hashed here."""
        return cls(path, content, len(content), hashlib.sha256(content).hexdigest())

    @classmethod
    def kept(cls, entry: TreeEntry) -> BranchFile:
        """A file that the branch has and keeps. Nothing is sent."""
        return cls(entry.path, None, entry.size, entry.lfs_sha256 or "", entry.oid)

    @classmethod
    def copied(cls, entry: TreeEntry, revision: str) -> BranchFile:
        """An LFS file that the commit copies from `revision`, a commit id of the same repo. Nothing is sent or read.

        Raises:
            ValueError: the file is not in LFS. The Hub copies LFS files only.
        """
        if entry.lfs_sha256 is None:
            raise ValueError(f"{entry.path} is not in LFS")
        return cls(entry.path, None, entry.size, entry.lfs_sha256, entry.oid, revision)

    def git_sha1(self) -> str:
        """The git blob id of the content. Reads it whole: only for files that are not in LFS.

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
        """Check that a local file still exists and has its size.

        Raises:
            StorageError: it does not.
        """
        if not isinstance(self.content, Path):
            return
        try:
            size = self.content.stat().st_size
        except OSError as error:
            raise StorageError(f"{self.path} is gone: {error}", self.content, "convert the step again") from error
        if size != self.size:
            what = f"{self.path} has {size} bytes, but had {self.size} when it was written"
            raise StorageError(what, self.content, "convert the step again")


def by_path(files: Iterable[BranchFile], where: str) -> dict[str, BranchFile]:
    """Path -> file.

    Raises:
        HubError: there are no files, or two have the same path.
    """
    wanted: dict[str, BranchFile] = {}
    for file in files:
        if file.path in wanted:
            raise HubError(f"{file.path} is listed twice", where, "list every file of a branch once")
        wanted[file.path] = file
    if not wanted:
        raise HubError("a branch without files", where, "publish at least a config and weights")
    return wanted


def surplus(entries: Iterable[TreeEntry], wanted: Mapping[str, BranchFile]) -> tuple[str, ...]:
    """Paths of a tree that the branch shall not hold."""
    return tuple(entry.path for entry in entries if entry.path not in wanted and entry.path != GITATTRIBUTES)


def differences(entries: Iterable[TreeEntry], wanted: Mapping[str, BranchFile]) -> tuple[str, ...]:
    """How a tree differs from the files that are wanted: paths, sizes, digests. Empty: not at all."""
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


def additions(files: Iterable[BranchFile]) -> list[CommitOperationAdd]:
    """The operations of a commit for the files whose content is here."""
    from huggingface_hub import CommitOperationAdd

    added = []
    for file in files:
        if file.content is None:
            continue
        addition = CommitOperationAdd(file.path, file.content)
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # known since the file was written: not hashed again
        added.append(addition)
    return added


def copies(files: Iterable[BranchFile]) -> list[CommitOperationCopy]:
    """The operations of a commit for the files that it copies from another revision."""
    from huggingface_hub import CommitOperationCopy

    return [
        CommitOperationCopy(file.path, file.path, src_revision=file.copied_from)
        for file in files
        if file.copied_from is not None
    ]


def deletions(paths: Iterable[str]) -> list[CommitOperationDelete]:
    """The operations of a commit that deletes these files."""
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path, is_folder=False) for path in paths]
