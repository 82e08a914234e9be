"""The release: steps in parallel, then ``main``. One bad step never stops the others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from publish.errors import HubError, PublishError
from publish.hub.checkpoints import Checkpoints
from publish.hub.ledger import Ledger, LedgerEntry
from publish.hub.manifest import Manifest
from publish.hub.status import StepStatus
from publish.hub.transaction import Committed, publish_branch
from publish.run.job import Job
from publish.run.mending import Mending, errata_of
from publish.run.outcome import Failure, Outcome
from publish.run.progress import Progress
from publish.run.registry import Registry
from publish.run.repair import Repair
from publish.run.step import ProvenStep, make_step
from publish.run.target import (
    Target,
    listed_on_main,
    preflight,
    published_manifests,
    push_main,
    source_commit,
    states,
)
from publish.run.workplace import Workplace
from publish.wire.client import Client
from publish.wire.clock import Interrupted


@dataclass(frozen=True, slots=True)
class Options:
    """How to release: steps in flight, which logits to verify, visibility."""

    workers: int = 2
    logits: str = "changed"  # changed, all, off
    private: bool = False
    repair: Repair | None = None  # publish what an audit found wrong, whatever its branch says of itself


@dataclass(frozen=True)
class Done:
    """A step that is on the Hub."""

    step: int
    commit: str
    manifest: Manifest
    made: bool
    bytes_read: int


def release(
    job: Job, client: Client, place: Workplace, options: Options, progress: Progress, stop: threading.Event
) -> Outcome:
    """Publish every chosen step that is not there yet, then ``main``.

    Raises:
        PublishError: it could not begin. What goes wrong with a step is in the outcome.
        Interrupted: Ctrl-C; the steps in flight have ended, and it says where the release stands.
    """
    begin = time.monotonic()
    target = preflight(job, client, place.work, options.workers, private=options.private)
    return _Release(job, target, place, options, progress, stop).run(begin)


class _Release:
    def __init__(
        self,
        job: Job,
        target: Target,
        place: Workplace,
        options: Options,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.job, self.target, self.place, self.options = job, target, place, options
        self.progress, self.stop = progress, stop
        self.repo = job.release.target
        self.ledger = Ledger(place.folder)
        self.registry = Registry(job.release)
        self.tokenizer = job.tokenizer.fingerprint() if job.tokenizer else None
        self.final: ProvenStep | None = None
        self.done: dict[int, Done] = {}
        self.manifests: dict[int, Manifest] = {}  # of steps that were there before this run
        self.failed: list[Failure] = []
        self.mending = (
            Mending(options.repair, target, listed_on_main(target, self.repo)) if options.repair is not None else None
        )

    def run(self, begin: float) -> Outcome:
        known = states(self.job, self.target, self.ledger, self.job.steps)
        repair = self.options.repair
        wrong = repair.steps if repair else [step for step in known if known[step].state != "published"]
        todo = [step for step in self.job.chosen if step in wrong]
        if todo:
            self._note_published(known)
        if self.mending is not None:
            right = self.mending
            todo = [step for step in todo if not right.is_right(step, self.manifests.get(step))]
        skipped = tuple(step for step in self.job.chosen if step not in todo)
        self.progress.start(len(self.job.chosen), len(skipped))
        try:
            self._work({step: known[step] for step in todo})
        except KeyboardInterrupt as error:
            left = len(todo) - len(self.done)
            what = f"interrupted: {len(skipped) + len(self.done)} steps are published, {left} are left"
            raise Interrupted(what, self.repo, "run the same command again to go on") from error
        main, made = self._main(known)
        emptied = len(self.mending.emptied) if self.mending else 0
        counts = Counter(f"{gate.name} {gate.outcome}" for each in self.done.values() for gate in each.manifest.gates)
        return Outcome(
            target=self.repo,
            address=f"{self.target.client.endpoint.url}/{self.repo}",
            published=tuple(sorted(step for step, each in self.done.items() if each.made)),
            skipped=(*skipped, *(step for step, each in self.done.items() if repair and not each.made)),
            left=repair.left if repair else (),
            failed=tuple(sorted(self.failed, key=lambda failure: failure.step)),
            commits=sum(each.made for each in self.done.values()) + made + emptied,
            bytes_read=sum(each.bytes_read for each in self.done.values()),
            bytes_uploaded=sum(file.size for each in self.done.values() if each.made for file in each.manifest.files),
            seconds=time.monotonic() - begin,
            main=main,
            gates=dict(counts),
        )

    def _note_published(self, known: Mapping[int, StepStatus]) -> None:
        """Read what is published already, so that no new step repeats the weights of an old one unnoticed."""
        tips = {step: each.commit for step, each in known.items() if each.state == "published" and each.commit}
        self.manifests = published_manifests(self.target.client, self.repo, tips)
        for step, manifest in self.manifests.items():
            self.registry.note(step, manifest.weights)

    def _work(self, todo: Mapping[int, StepStatus]) -> None:
        with ThreadPoolExecutor(self.options.workers, "step") as pool:
            waiting: dict[Future[Done], int] = {
                pool.submit(self._step, step, state): step for step, state in todo.items()
            }
            try:
                while waiting:
                    ended, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._ended(waiting.pop(future), future)
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _ended(self, step: int, future: Future[Done]) -> None:
        try:
            self.done[step] = future.result()
            self.progress.step(step, "published")
        except PublishError as error:
            self.failed.append(Failure.of(step, error))
            self.progress.step(step, "failed")

    def _step(self, step: int, state: StepStatus) -> Done:
        """One step from its source to the Hub."""
        if state.state == "foreign" and self.mending is None:
            raise HubError(
                f"branch step{step} holds something this tool did not put there: {state.reason}",
                f"{self.repo}@step{step}",
                "look at the branch; delete it if it is to be published again",
            )
        source = replace(self.job.run.steps[step], commit=source_commit(self.job, step))
        proven = make_step(self.job, source, self.place.work, logits=self.options.logits, tokenizer=self.tokenizer)
        kept = False
        try:
            self.registry.check(step, proven.fingerprint, proven.manifest.weights)
            tip = state.commit if state.state == "stale" else self.target.branches.get(f"step{step}")
            if self.mending is not None:
                tip = self.mending.begin(f"step{step}", proven.files)
            outcome = publish_branch(
                self.target.client, self.target.base, f"step{step}", proven.files, f"Step {step:,}", tip=tip
            )
            record = proven.manifest
            self.ledger.add(
                LedgerEntry(
                    self.repo,
                    outcome.branch,
                    outcome.commit,
                    record.source.commit,
                    record.plan,
                    record.card,
                    record.digest,
                )
            )
            if self.mending is not None:
                self.mending.ended(step, outcome.commit)
            if step == self.job.steps[-1]:
                self.final, kept = proven, True
            made = isinstance(outcome, Committed)
            return Done(step, outcome.commit, record, made, proven.bytes_read)
        finally:
            if not kept:
                proven.discard()

    def _main(self, known: Mapping[int, StepStatus]) -> tuple[str, int]:
        """Push ``main`` once every step of the schedule is there; what became of it, and the commits made."""
        commits = {step: state.commit for step, state in known.items() if state.state == "published" and state.commit}
        commits |= {step: each.commit for step, each in self.done.items()}
        if missing := [step for step in self.job.steps if step not in commits]:
            return f"waits for {len(missing)} steps", 0
        listed = listed_on_main(self.target, self.repo)
        if self.mending is None and not self.done and _still(listed, self.target.branches) == commits:
            return "as it should be", 0
        manifests = self.manifests | {step: each.manifest for step, each in self.done.items()}
        absent = {step: commit for step, commit in commits.items() if step not in manifests}
        manifests |= published_manifests(self.target.client, self.repo, absent)
        self.registry.check_expected(manifests)
        final = self.final or self._remade(self.job.steps[-1])
        try:
            errata = self.mending.errata(listed) if self.mending else errata_of(listed)
            begin = self.mending.begin if self.mending else None
            outcome = push_main(self.job, self.target, final, commits, manifests, errata, begin)
        except PublishError as error:
            self.failed.append(Failure.of(final.step, error))
            return "failed", 0
        finally:
            final.discard()
        return ("published", 1) if outcome else ("as it should be", 0)

    def _remade(self, step: int) -> ProvenStep:
        """The final step's files again, for ``main``: the same bytes, so nothing is uploaded twice."""
        source = replace(self.job.run.steps[step], commit=source_commit(self.job, step))
        return make_step(self.job, source, self.place.work, logits=self.options.logits, tokenizer=self.tokenizer)


def _still(listed: Checkpoints | None, tips: Mapping[str, str]) -> dict[int, str]:
    """Step -> commit as ``main`` lists it, where that is still true of the branches."""
    records = listed.checkpoints if listed else ()
    return {record.step: record.commit for record in records if tips.get(record.branch) == record.commit}
