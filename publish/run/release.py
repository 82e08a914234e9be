"""The release: steps in parallel, then ``main``. One bad step never stops the others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from publish.errors import HubError, PublishError
from publish.hub.ledger import Ledger, LedgerEntry
from publish.hub.manifest import Manifest
from publish.hub.status import StepStatus
from publish.hub.transaction import Committed, publish_branch
from publish.run.cardfacts import hub_address
from publish.run.job import Job
from publish.run.outcome import Failure, Outcome
from publish.run.progress import Progress
from publish.run.registry import Registry
from publish.run.step import ProvenStep, make_step
from publish.run.target import (
    Target,
    preflight,
    published_manifests,
    push_main,
    records_on_main,
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
    job = replace(job, hub=hub_address(client.endpoint))
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

    def run(self, begin: float) -> Outcome:
        known = states(self.job, self.target, self.ledger, self.job.steps)
        todo = [step for step in self.job.chosen if known[step].state != "published"]
        skipped = tuple(step for step in self.job.chosen if known[step].state == "published")
        if todo:
            self._note_published(known)
        self.progress.start(len(self.job.chosen), len(skipped))
        try:
            self._work({step: known[step] for step in todo})
        except KeyboardInterrupt as error:
            left = len(todo) - len(self.done)
            what = f"interrupted: {len(skipped) + len(self.done)} steps are published, {left} are left"
            raise Interrupted(what, self.repo, "run the same command again to go on") from error
        main, made = self._main(known)
        counts = Counter(f"{gate.name} {gate.outcome}" for each in self.done.values() for gate in each.manifest.gates)
        return Outcome(
            target=self.repo,
            address=f"{self.target.client.endpoint.url}/{self.repo}",
            published=tuple(sorted(step for step, each in self.done.items() if each.made)),
            skipped=skipped,
            failed=tuple(sorted(self.failed, key=lambda failure: failure.step)),
            commits=sum(each.made for each in self.done.values()) + made,
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
        if state.state == "foreign":
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
            if step == self.job.steps[-1]:
                self.final, kept = proven, True
            made = isinstance(outcome, Committed)
            return Done(step, outcome.commit, record, made, proven.bytes_read)
        finally:
            if not kept:
                proven.discard()

    def _main(self, known: Mapping[int, StepStatus]) -> tuple[str, int]:
        """Push ``main`` once every step of the schedule is there; what became of it, and the commits made."""
        commits = {step: each.commit for step, each in self.done.items()}
        commits |= {step: state.commit for step, state in known.items() if state.state == "published" and state.commit}
        if missing := [step for step in self.job.steps if step not in commits]:
            return f"waits for {len(missing)} steps", 0
        listed = records_on_main(self.target, self.repo)
        if {step: each.commit for step, each in listed.items()} == commits and not self.done:
            return "as it should be", 0
        manifests = self.manifests | {step: each.manifest for step, each in self.done.items()}
        absent = {step: commit for step, commit in commits.items() if step not in manifests}
        manifests |= published_manifests(self.target.client, self.repo, absent)
        self.registry.check_expected(manifests)
        final = self.final or self._remade(self.job.steps[-1])
        try:
            outcome = push_main(self.job, self.target, final, commits, manifests)
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
