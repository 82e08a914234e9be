"""Commits verified branches while further steps are made. The one place in a release that pushes a step."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from publish.errors import GateError, PublishError
from publish.hub.client import Client
from publish.hub.failures import Refused
from publish.hub.repository import Base
from publish.hub.transaction import publish_branch
from publish.interrupt import Interrupted, Stop, stop_if
from publish.lineage.suite import Repeats
from publish.records.checkpoints import CheckpointRecord
from publish.records.manifest import Manifest
from publish.release.outcome import CommittedBranch, Failure
from publish.release.progress import Progress
from publish.release.repair import BranchRepair
from publish.release.state import ReleaseState
from publish.release.step import VerifiedBranch
from publish.release_file import Release

_COMMITS = 16  # in flight at most; an executor's limit of steps is the usual bound


class Committer:
    """Takes what an executor makes, and closes every branch that it takes, whatever becomes of it.

    Used as a context manager: it ends when the commits in flight have ended, or when ``stop`` leaves them no more time.
    """

    def __init__(
        self,
        client: Client,
        base: Base,
        state: ReleaseState,
        repair: BranchRepair | None,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self.refused = threading.Event()  # the Hub refuses every commit of this release: no right, no quota left
        self.failed: list[Failure] = []
        self.branches: dict[str, CommittedBranch] = {}
        self._client, self._base, self._state = client, base, state
        self._repair, self._stop, self._progress = repair, stop, progress
        self._duplicates = DuplicateCheck(state.job.release)
        for step, record in state.records.items():
            self._duplicates.note(step, record.weights)
        self._pool = ThreadPoolExecutor(_COMMITS, "commit")
        self._lock = threading.Lock()
        self._commits: set[Future[None]] = set()

    def __enter__(self) -> Committer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=error is not None)
        wait(self._commits, timeout=self._stop.remaining if error is not None else None)

    def take(self, result: VerifiedBranch | Failure) -> None:
        """Note a failure, or check a branch for weights of another step and have it committed. Never blocks.

        Raises:
            Exception: a bug that ended a commit's thread.
        """
        self._raise_bugs()
        if isinstance(result, Failure):
            self._fail(result)
            return
        try:
            self._duplicates.check(result)
        except GateError as error:
            result.close()
            self._fail(Failure.of(result.name, result.step, error))
            return
        self._commits.add(self._pool.submit(self._commit, result))

    def wait(self) -> None:
        """Wait for the commits in flight; under a quota that may take an hour.

        Raises:
            Interrupted: ``stop`` was set. Exception: a bug that ended a commit's thread.
        """
        while self._commits:
            stop_if(self._stop)
            wait(self._commits, timeout=0.2)
            self._raise_bugs()

    def records(self) -> dict[str, CheckpointRecord]:
        """Branch -> the record of what this run committed there."""
        return {name: CheckpointRecord.of(done.manifest, done.commit) for name, done in self.branches.items()}

    def manifests(self) -> tuple[Manifest, ...]:
        """What this run committed, whole: ``checkpoints.json`` lacks the sketches."""
        return tuple(done.manifest for done in self.branches.values())

    def _commit(self, branch: VerifiedBranch) -> None:
        try:
            tip = self._state.tips.get(branch.name)
            if self._repair is not None:
                tip = self._repair.tip_for(branch.name, branch.files)
            published = publish_branch(
                self._client, self._base, branch.name, branch.files, f"Step {branch.step:,}", tip=tip
            )
            if self._repair is not None:
                self._repair.note(branch.name, branch.step, published.commit)
        except Interrupted:
            raise
        except PublishError as error:
            if isinstance(error, Refused) and error.for_all:
                self.refused.set()
            self._fail(Failure.of(branch.name, branch.step, error))
        else:
            with self._lock:
                self.branches[branch.name] = CommittedBranch(
                    branch.name,
                    branch.step,
                    published.commit,
                    branch.manifest,
                    published.committed,
                    branch.bytes_read,
                    published.removed,
                )
            self._progress.step(branch.name, "published")
        finally:
            branch.close()

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            self.failed.append(failure)
        self._progress.step(failure.branch, "failed")

    def _raise_bugs(self) -> None:
        ended = {commit for commit in self._commits if commit.done()}
        self._commits -= ended
        for commit in ended:
            commit.result()


class DuplicateCheck:
    """No two steps hold the same weights unless the release file says so, and what it says has to hold."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._steps: dict[str, list[int]] = {}  # digest of a file, or of all weights -> the steps that have it
        self._repeats = Repeats(release)

    def note(self, step: int, weights: tuple[str, ...]) -> None:
        """Remember the digests of the weight files of a published step."""
        for digest in weights:
            self._steps.setdefault(digest, []).append(step)

    def check(self, branch: VerifiedBranch) -> None:
        """Compare a branch's weights with those of all steps before it, and remember them.

        Raises:
            GateError: another step has the same weights, or shares a weight file or matrices that training changes,
                and the release file does not declare it; or it declares it and they differ.
        """
        step, weights = branch.step, branch.manifest.weights
        for digest in (branch.fingerprint, *weights):
            same = "holds the same weights as"
            relation = same if digest == branch.fingerprint or len(weights) == 1 else "shares a weight file with"
            known = self._steps.setdefault(digest, [])
            for other in known:
                if other != step and not self._release.expected_equal(step, other):
                    raise GateError(
                        f"step {step:,} {relation} step {other:,}",
                        self._release.source,
                        "find out which checkpoint is wrong; if the steps are equal, declare it under expect: "
                        f"- {{equal: [{other}, {step}], because: ...}}",
                    )
            known.append(step)
        for finding in self._repeats.findings(step, branch.sketch):
            raise GateError(finding.detail, self._release.source, finding.fix)
        self._repeats.add(step, branch.sketch)
