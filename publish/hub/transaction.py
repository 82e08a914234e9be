"""The branch transaction: afterwards a branch holds exactly the given files, put there by one commit.

A commit that was answered 504 may still have been applied, huggingface_hub does not retry one, and a blind repeat makes
a second commit (docs/hub-protocol.md, "What huggingface_hub retries"; huggingface/datasets#7708). So the commit names
its parent, a lost answer is resolved by looking at the tip of the branch, and the branch is read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publish.errors import HubError
from publish.hub.branch_files import BranchFile, additions, by_path, copies, deletions, differences, surplus
from publish.hub.client import Client
from publish.hub.failures import RateLimited, Refused, Unavailable, Uncertain
from publish.hub.reads import CommitRecord, latest_commits, list_tree
from publish.hub.repository import Base, validate_card
from publish.interrupt import Interrupted
from publish.records.files import README
from publish.text import some

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

READ_BACKS = 3  # the tree may lag behind the commit for a moment
CONFLICT = frozenset({409, 412})


@dataclass(frozen=True, slots=True)
class Published:
    """A branch that holds exactly the requested files, at `commit`.

    `committed`: False if it held them already and we committed nothing. `removed`: paths that our commit deleted
    because they were on the branch and not requested.
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

    `tip` is the branch's commit as the caller has seen it; this commit may be replaced. None: there was no such branch,
    and it is created at the first commit of the repo. A branch that has moved since then is never overwritten.

    Raises:
        HubError: somebody else's commit is on the branch; the Hub refuses; the branch, read back, differs.
        StorageError: a local file is gone or has changed.
        Interrupted: the client's stop event was set. The branch is untouched or complete.
    """
    where = f"{client.endpoint.url}/{base.repo} branch {branch}"
    target = _Target(client, base.repo, branch, by_path(files, where), where)
    wanted = target.files
    for file in wanted.values():
        file.check()
    if README in wanted and (card := wanted[README].content) is not None:
        validate_card(client, (card if isinstance(card, bytes) else card.read_bytes()).decode(), where)

    parent = tip or base.commit
    if tip is None and not target.create(parent):
        found = target.commit_if_ours(parent)  # somebody created the branch since the caller looked
        if found is not None:
            return Published(branch, found, committed=False)
    entries = base.entries if parent == base.commit else list_tree(client, base.repo, parent)
    if not differences(entries, wanted):
        return Published(branch, parent, committed=False)
    removed = surplus(entries, wanted)

    added = preupload_lfs(client, base.repo, wanted.values(), revision=branch)
    operations: list[Operation] = [*added, *copies(wanted.values()), *deletions(removed)]
    failure: HubError | None = None
    uncertain = False  # an answer was lost: a commit at the tip with our files is ours
    for attempt in range(1, client.retry_policy.tries + 1):
        try:
            commit = target.commit(parent, operations, message)
        except Uncertain as error:
            commit, failure, uncertain = None, error, True
        except Refused as error:
            if error.status not in CONFLICT:
                raise
            commit, failure = None, error
        if commit is None:
            commit = target.commit_if_ours(parent)
            if commit is not None and not uncertain:
                return Published(branch, commit, committed=False)  # another publisher's, with the same files
        if commit is not None:
            target.read_back(commit)
            return Published(branch, commit, committed=True, removed=removed)
        client.clock.sleep(client.retry_policy.backoff(attempt), client.stop)
    raise Unavailable(
        f"could not commit to {branch}: {failure.what if failure else 'huggingface_hub sends nothing'}",
        where,
        "run the same command again; the branch is unchanged",
    ) from failure


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


@dataclass(frozen=True)
class _Target:
    """The branch to publish, and the files that it shall hold."""

    client: Client
    repo: str
    branch: str
    files: Mapping[str, BranchFile]
    where: str

    def create(self, commit: str) -> bool:
        """Create the branch at `commit`; False if it exists. After a lost answer it exists too: the tip decides."""

        def create() -> None:
            self.client.api.create_branch(self.repo, branch=self.branch, revision=commit)

        try:
            self.client.call(f"creating branch {self.branch}", create)
        except Refused as error:
            if error.status == 409:
                return False
            raise
        return True

    def commit(self, parent: str, operations: Sequence[Operation], message: str) -> str | None:
        """Commit on top of `parent`; the new commit, or None if huggingface_hub sent nothing.

        It sends nothing if it sees that the branch has all of it already.
        """
        commits = self.client.commits
        slot = commits.reserve(self.repo)
        before = self.client.commits_of_thread

        def send() -> str:
            try:
                return self.client.api.create_commit(
                    self.repo, operations, commit_message=message, revision=self.branch, parent_commit=parent
                ).oid
            except RateLimited as limited:
                if limited.commits and limited.seconds is not None:
                    commits.hold(self.repo, limited.seconds)
                raise

        applied = False
        try:
            commit = self.client.call(f"committing to {self.branch}", send, idempotent=False)
            applied = self.client.commits_of_thread > before
        except (Uncertain, Interrupted, KeyboardInterrupt):
            applied = self.client.commits_of_thread > before  # it may be: the quota counts it
            raise
        finally:
            commits.settle(slot, applied=applied)
        return commit if applied else None

    def commit_if_ours(self, parent: str) -> str | None:
        """The tip of the branch if it holds exactly our files, None if it still is `parent`.

        Raises:
            HubError: the tip is somebody else's.
        """
        tip = latest_commits(self.client, self.repo, self.branch)[0]
        if tip.id == parent:
            return None
        found = differences(list_tree(self.client, self.repo, tip.id), self.files)
        if found:
            raise self._changed_by_others(tip, found)
        return tip.id

    def read_back(self, commit: str) -> None:
        """Check that the Hub lists exactly our files on the branch.

        Raises:
            HubError: it does not, even after a moment.
        """
        found: tuple[str, ...] = ()
        for attempt in range(1, READ_BACKS + 1):
            found = differences(list_tree(self.client, self.repo, self.branch), self.files)
            if not found:
                return
            tip = latest_commits(self.client, self.repo, self.branch)[0]
            if tip.id != commit:
                raise self._changed_by_others(tip, found)
            self.client.clock.sleep(self.client.retry_policy.backoff(attempt), self.client.stop)
        raise HubError(
            f"{self.branch} does not hold what was sent: {some(found, 5, '; ')}",
            f"{self.where} commit {commit}",
            "run again: the branch is then published again; if this repeats, report it to the Hub",
        )

    def _changed_by_others(self, tip: CommitRecord, found: Sequence[str]) -> HubError:
        author = ", ".join(tip.authors) or "somebody"
        return HubError(
            f"{self.branch} was changed by {author}: commit {tip.id} {tip.title!r} ({some(found, 5, '; ')})",
            self.where,
            "agree with them on who publishes this branch, then run again",
        )
