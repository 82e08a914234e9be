"""The branch transaction: after it, a branch holds exactly the given files, put there by one commit.

huggingface_hub's create_commit is neither repeated nor timed out; a commit can be answered 504 and still be
applied; a blind repeat makes a second commit (facts/hub-protocol.md, "Who retries what"; datasets#7708). So
the commit names its parent, a lost answer is answered by looking at the tip, and the tip is read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publish.errors import HubError
from publish.hub.branch_files import (
    BranchFile,
    additions,
    by_path,
    copies,
    deletions,
    differences,
    spelled,
    surplus,
)
from publish.hub.client import Client, backoff
from publish.hub.failures import RateLimited, Refused, Unavailable, Uncertain
from publish.hub.reads import CommitRecord, latest_commits, list_tree
from publish.hub.repository import Base, validate_card
from publish.interrupt import Interrupted

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

README = "README.md"
READ_BACKS = 3  # the tree may lag behind the commit for a moment
CONFLICT = frozenset({409, 412})


@dataclass(frozen=True, slots=True)
class Published:
    """A branch that holds exactly the files that were asked for, at `commit`.

    `committed`: False where it held them already and nothing was committed. `removed`: paths that the commit deleted
    because the branch held them and no one asked for them.
    """

    branch: str
    commit: str
    committed: bool
    removed: tuple[str, ...] = ()


def publish_branch(
    client: Client,
    base: Base,
    branch: str,
    files: Iterable[BranchFile],
    message: str,
    *,
    tip: str | None = None,
) -> Published:
    """Make `branch` hold exactly `files`, by at most one commit.

    `tip` is the branch's commit as the caller has seen it (and may replace), None when there was no such
    branch: then it is created at the repo's first commit. One that moved from there is never overwritten.

    Raises:
        HubError: somebody else's commit is on the branch; the Hub refuses; the branch, read back, differs.
        StorageError: a local file is gone or changed.
        Interrupted: the client's interrupt event was set; the branch is untouched or complete.
    """
    return _Transaction(client, base, branch, files, message).run(tip)


def preupload_lfs(
    client: Client, repo: str, files: Iterable[BranchFile], *, revision: str = "main"
) -> list[CommitOperationAdd]:
    """Upload those of `files` that the Hub keeps in LFS, and return the operations of a commit that adds all of them.

    Uploads do not count as commits. A later commit, from this machine or another, finds the bytes on the Hub.

    Raises:
        HubError: the Hub refuses, or cannot be reached.
    """
    added = additions(files)

    def upload() -> None:
        client.api.preupload_lfs_files(repo, added, revision=revision, free_memory=False)

    client.call(f"uploading files to {repo}@{revision}", upload)
    return added


class _Transaction:
    def __init__(self, client: Client, base: Base, branch: str, files: Iterable[BranchFile], message: str) -> None:
        self.client = client
        self.base = base
        self.repo = base.repo
        self.branch = branch
        self.where = f"{client.endpoint.url}/{self.repo} branch {branch}"
        self.wanted = by_path(files, self.where)
        self.message = message

    def run(self, tip: str | None) -> Published:
        self._check()
        if tip is None and not self._create_branch():
            # somebody created it after the caller looked
            commit = self._ours_at_tip(self.base.commit)
            if commit is not None:
                return Published(self.branch, commit, committed=False)
        parent, removed = self.base.commit, tuple(p for p in self.base.inherited if p not in self.wanted)
        if tip is not None and tip != self.base.commit:
            entries = list_tree(self.client, self.repo, tip)
            if not differences(entries, self.wanted):
                return Published(self.branch, tip, committed=False)
            parent, removed = tip, surplus(entries, self.wanted)
        commit, made = self._commit(parent, self._upload(removed))
        if not made:
            return Published(self.branch, commit, committed=False)
        self._read_back(commit)
        return Published(self.branch, commit, committed=True, removed=removed)

    def _check(self) -> None:
        for file in self.wanted.values():
            file.check()
        card = self.wanted.get(README)
        if card is not None and card.content is not None:
            content = card.content if isinstance(card.content, bytes) else card.content.read_bytes()
            validate_card(self.client, content.decode(), self.where)

    def _create_branch(self) -> bool:
        """False when it exists; a repeat after a lost answer finds our own, which is no different."""

        def create() -> None:
            self.client.api.create_branch(self.repo, branch=self.branch, revision=self.base.commit)

        try:
            self.client.call(f"creating branch {self.branch}", create)
        except Refused as error:
            if error.status == 409:
                return False
            raise
        return True

    def _upload(self, removed: tuple[str, ...]) -> list[Operation]:
        """The commit's operations, the LFS files among them uploaded."""
        files = self.wanted.values()
        added = preupload_lfs(self.client, self.repo, files, revision=self.branch)
        return [*added, *copies(files), *deletions(removed)]

    def _commit(self, parent: str, operations: list[Operation]) -> tuple[str, bool]:
        """The commit at the tip, and whether it is of our making. One at a time, on top of `parent`."""
        failure: HubError | None = None
        uncertain = False
        for attempt in range(1, self.client.patience.tries + 1):
            try:
                if (sent := self._send(parent, operations)) is not None:
                    return sent, True
            except Uncertain as error:
                failure, uncertain = error, True
            except Refused as error:
                if error.status not in CONFLICT:
                    raise
                failure = error
            commit = self._ours_at_tip(parent)
            if commit is not None:
                return commit, uncertain
            self.client.clock.sleep(backoff(attempt, self.client.patience), self.client.interrupt)
        raise Unavailable(
            f"the commit to {self.branch} did not get through: {failure.what if failure else ''}",
            self.where,
            "run the same command again; the branch is as it was",
        ) from failure

    def _send(self, parent: str, operations: list[Operation]) -> str | None:
        """The commit; None where huggingface_hub saw that the branch has all of it already, and sent nothing."""
        before = self.client.commits_of_thread
        slot = self.client.commits.reserve(self.repo)

        def send() -> str:
            try:
                return self.client.api.create_commit(
                    self.repo,
                    operations,
                    commit_message=self.message,
                    revision=self.branch,
                    parent_commit=parent,
                ).oid
            except RateLimited as limited:
                if limited.commits and limited.seconds is not None:
                    self.client.commits.hold(self.repo, limited.seconds)
                raise

        applied = False
        try:
            commit = self.client.call(f"committing to {self.branch}", send, idempotent=False)
            applied = self.client.commits_of_thread > before
        except (Uncertain, Interrupted, KeyboardInterrupt):
            applied = True  # it may be: the quota counts it
            raise
        finally:
            slot.settle(applied=applied)
        return commit if applied else None

    def _ours_at_tip(self, parent: str) -> str | None:
        """The tip if it holds exactly our files, None if it still is `parent`.

        Raises:
            HubError: the tip is somebody else's.
        """
        tip = latest_commits(self.client, self.repo, self.branch)[0]
        if tip.id == parent:
            return None
        found = differences(list_tree(self.client, self.repo, tip.id), self.wanted)
        if found:
            raise self._foreign(tip, found)
        return tip.id

    def _foreign(self, tip: CommitRecord, found: tuple[str, ...]) -> HubError:
        author = ", ".join(tip.authors) or "somebody"
        return HubError(
            f"{self.branch} was changed by {author}: commit {tip.id} {tip.title!r} ({spelled(found)})",
            self.where,
            "agree with them on who publishes this branch, then run again",
        )

    def _read_back(self, commit: str) -> None:
        found: tuple[str, ...] = ()
        for attempt in range(1, READ_BACKS + 1):
            found = differences(list_tree(self.client, self.repo, self.branch), self.wanted)
            if not found:
                return
            tip = latest_commits(self.client, self.repo, self.branch)[0]
            if tip.id != commit:
                raise self._foreign(tip, found)
            self.client.clock.sleep(backoff(attempt, self.client.patience), self.client.interrupt)
        raise HubError(
            f"{self.branch}, read back, is not what was sent: {spelled(found)}",
            f"{self.where} commit {commit}",
            "run again: the branch will be published anew; if it stays, report it to the Hub",
        )
