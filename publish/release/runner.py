"""The release: steps in parallel, then stale cards, then ``main``. One bad step never stops the others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from publish.errors import HubError, PublishError
from publish.hub.client import Client
from publish.hub.failures import Refused
from publish.hub.repository import check_name
from publish.hub.transaction import Committed, publish_branch
from publish.interrupt import Interrupted
from publish.plots.style import load
from publish.records.gates import Gate
from publish.release.card_facts import hub_address
from publish.release.cards import make_cards, push_cards
from publish.release.comparisons import check_comparisons
from publish.release.ending import Ending
from publish.release.executors import Engine, LocalEngine
from publish.release.job import Job
from publish.release.ledger import Ledger, LedgerEntry
from publish.release.making import Making
from publish.release.mending import Mending, wrong_steps
from publish.release.outcome import Done, Failure, Outcome
from publish.release.preflight import Target, preflight, steps_ahead
from publish.release.progress import Progress, Silent
from publish.release.registry import Registry
from publish.release.repair import Repair
from publish.release.state import MAIN, Standing, branches_of, stand
from publish.release.step import ProvenStep
from publish.release.work_dir import Workplace


@dataclass(frozen=True, slots=True)
class Options:
    """How to release: steps in flight, which logits to verify, visibility, where steps are made."""

    workers: int = 2
    logits: str = "changed"  # changed, all, off
    private: bool = False
    repair: Repair | None = None  # publish what an audit found wrong, whatever its branch says of itself, and no more
    engine: Engine = field(default_factory=LocalEngine)


def release(
    job: Job, client: Client, place: Workplace, options: Options, progress: Progress, stop: threading.Event
) -> Outcome:
    """Publish every chosen step that is not there yet, then ``main``.

    A release that is finished is found so by its refs, and nothing else is asked.

    Raises:
        PublishError: it could not begin. What goes wrong with a step is in the outcome.
        Interrupted: Ctrl-C; the steps in flight have ended, and it says where the release stands.
    """
    begin = time.monotonic()
    repo = job.release.target
    check_name(repo)
    check_comparisons(job.release, job.steps)
    if job.release.commits_per_hour is not None:
        client.commits.limit = job.release.commits_per_hour
    job = replace(job, hub=hub_address(client.endpoint))
    before = stand(job, client, Ledger(place.folder), branches_of(client, repo), job.steps)
    run = _Release(before, place, options, progress, stop)
    if before.finished and options.repair is None:
        outcome = run.outcome(begin, "as it should be")
    else:
        target = preflight(job, client, place.work, options.workers, private=options.private)
        outcome = run.run(begin, target)
    return outcome


class _Release:
    def __init__(
        self, before: Standing, place: Workplace, options: Options, progress: Progress, stop: threading.Event
    ) -> None:
        self.before, self.place, self.options = before, place, options
        self.job, self.client, self.ledger = before.job, before.client, before.ledger
        self.progress, self.stop = progress, stop
        self.repo = self.job.release.target
        self.registry = Registry(self.job.release)
        self.todo = wrong_steps(options.repair, before) if options.repair else before.todo()
        self.mending: Mending | None = None
        self.final: ProvenStep | None = None
        self.done: dict[int, Done] = {}
        self.failed: list[Failure] = []
        self.lineage: tuple[Gate, ...] = ()
        self.other_commits: list[str] = []  # the branches of commits that were not a step's own

    @property
    def skipped(self) -> tuple[int, ...]:
        return tuple(step for step in self.job.chosen if step not in self.todo)

    def run(self, begin: float, target: Target) -> Outcome:
        self.progress.start(len(self.job.chosen), len(self.skipped))
        if self.options.repair is not None:
            self.mending = Mending(self.options.repair, self.before, target.base)
        try:
            if self.todo:
                for step, record in self.before.records.items():
                    self.registry.note(step, record.weights)  # no new step repeats the weights of an old one
                self._work(target)
            if self.mending is None:
                self._cards()
            main = self._main(target)
        except (KeyboardInterrupt, Interrupted) as error:
            left = len(self.todo) - len(self.done)
            what = f"interrupted: {len(self.skipped) + len(self.done)} steps are published, {left} are left"
            raise Interrupted(what, self.repo, "run the same command again to go on") from error
        finally:
            if self.final is not None:
                self.final.discard()
        return self.outcome(begin, main)

    def outcome(self, begin: float, main: str) -> Outcome:
        """What became of it, ``main`` in words."""
        kept = (step for step, each in self.done.items() if self.mending and not each.made)
        emptied = self.mending.emptied if self.mending else ()
        return Outcome.of_steps(
            self.repo,
            f"{self.client.endpoint.url}/{self.repo}",
            self.done.values(),
            skipped=(*self.skipped, *kept),
            left=self.options.repair.left if self.options.repair else (),
            failed=tuple(sorted(self.failed, key=lambda failure: failure.step)),
            commits=sum(each.made for each in self.done.values()) + len(self.other_commits) + len(emptied),
            seconds=time.monotonic() - begin,
            main=main,
            lineage=self.lineage,
        )

    def _work(self, target: Target) -> None:
        threading.Thread(target=load, name="plots").start()
        steps = [step for step in self.todo if not self._foreign(step)]
        run = self.options.engine.run(self.making, steps, partial(self._publish, target))
        with closing(run) as ended:
            for step, future in ended:
                self._ended(step, future)

    @cached_property
    def making(self) -> Making:
        options, job = self.options, self.job
        return Making(
            job=job,
            expected=self.before.expected,
            tokenizer=job.tokenizer.fingerprint() if job.tokenizer else None,
            client=self.client,
            place=self.place,
            workers=options.workers,
            ahead=steps_ahead(job),
            logits=options.logits,
            progress=self.progress,
            stop=self.stop,
        )

    def _foreign(self, step: int) -> bool:
        """Whether somebody else's work is on the step's branch; then the step has failed."""
        state = self.todo[step]
        if state.state != "foreign" or self.mending is not None:
            return False
        error = HubError(
            f"branch step{step} holds something this tool did not put there: {state.reason}",
            f"{self.repo}@step{step}",
            "look at the branch; delete it if it is to be published again",
        )
        self._failed(step, error)
        return True

    def _ended(self, step: int, future: Future[Done | None]) -> None:
        try:
            done = future.result()
            if done is not None:
                self.done[step] = done
                self.progress.step(step, "published")
        except Interrupted:
            raise
        except PublishError as error:
            self._failed(step, error)

    def _failed(self, step: int, error: PublishError) -> None:
        self.failed.append(Failure.of(step, error))
        self.progress.step(step, "failed")

    def _publish(self, target: Target, proven: ProvenStep) -> Done:
        """A proven step to its branch. The last one's folder is kept for ``main``."""
        step, kept = proven.step, False
        try:
            self.registry.check(step, proven.fingerprint, proven.manifest.weights, proven.sketch)
            tip = self.before.branches.get(f"step{step}")
            if self.mending is not None:
                tip = self.mending.begin(f"step{step}", proven.files)
            outcome = publish_branch(self.client, target.base, f"step{step}", proven.files, f"Step {step:,}", tip=tip)
            self.ledger.add(LedgerEntry(self.repo, outcome.branch, outcome.commit, self.before.expected[step].proof))
            if self.mending is not None:
                self.mending.ended(step, outcome.commit)
            if step == self.job.steps[-1]:
                self.final, kept = proven, True
            made, removed = (True, outcome.removed) if isinstance(outcome, Committed) else (False, ())
            return Done(step, outcome.commit, proven.manifest, made, proven.bytes_read, removed)
        except Refused as error:
            if error.for_all:
                self.making.hopeless.set()
            raise
        finally:
            if not kept:
                proven.discard()

    def _made_again(self, step: int) -> ProvenStep:
        """A published step's files, the same bytes again: nothing is uploaded twice."""
        with closing(self.options.engine.run(self.making, [step], lambda proven: proven)) as ended:
            (made,) = [future.result() for _, future in ended]
        if made is None:
            raise HubError("the Hub refuses what this step needs", f"{self.repo}@step{step}", "see what failed before")
        return made

    def _cards(self) -> None:
        """Push the cards of chosen steps that are right but for them; no weight is read for that."""
        stale = self.before.stale_cards()
        if not stale:
            return
        cards = make_cards(self.job.release, self.client, self.job.templates)
        chosen = tuple(card for card in cards.cards if card.step is None or card.step in stale)
        pushed = push_cards(replace(cards, cards=chosen), self.client, Silent())
        self.other_commits += pushed.branches
        self.failed += pushed.failed

    def _main(self, target: Target) -> str:
        ending = Ending(self.before, self.done, self.mending)
        main = ending.main(target, self._final)
        self.failed += ending.failed
        self.lineage = ending.lineage
        if ending.committed:
            self.other_commits.append(MAIN)
        return main

    def _final(self) -> ProvenStep:
        """The final step's files, made again where this run did not: the same bytes, so nothing is uploaded twice."""
        self.final = self.final or self._made_again(self.job.steps[-1])
        return self.final
