"""What comes after the steps of a release: what they show together, and ``main``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from publish.errors import PublishError
from publish.hub.cards import READERS, read_manifest
from publish.hub.checkpoints import CheckpointRecord
from publish.hub.ledger import LedgerEntry
from publish.hub.look import read_listing
from publish.hub.manifest import GateRecord
from publish.hub.transaction import Committed
from publish.run.lineage import Traced, trace_manifests
from publish.run.outcome import Done, Failure
from publish.run.standing import MAIN, Standing, branches_of, main_proof, stand
from publish.run.step import ProvenStep
from publish.run.target import Target, push_main
from publish.wire.clock import Interrupted


class Ending:
    """``before`` is where the release stood, ``done`` what was added; the rest is filled in by :meth:`main`."""

    def __init__(self, before: Standing, done: Mapping[int, Done]) -> None:
        self.job, self.client, self.ledger = before.job, before.client, before.ledger
        self.repo = before.job.release.target
        self.done = done
        self.lineage: tuple[GateRecord, ...] = ()
        self.failed: list[Failure] = []
        self.committed = False

    def main(self, target: Target, final: Callable[[], ProvenStep]) -> str:
        """Push ``main`` once every step of the schedule is there, by the Hub's own word; what became of it.

        ``final`` gives the final step's files, and is only asked where they are needed.

        Raises:
            HubError: no access, no connection. Interrupted: Ctrl-C.
        """
        made = {f"step{step}": each.commit for step, each in self.done.items()}
        branches = made | branches_of(self.client, self.repo)
        known = {
            step: CheckpointRecord.of(each.manifest, each.commit)
            for step, each in self.done.items()
            if branches[f"step{step}"] == each.commit
        }
        now = stand(self.job, self.client, self.ledger, branches, self.job.steps, known)
        if missing := len(self.job.steps) - len(now.commits):
            return f"waits for {missing} steps"
        now, failures = self._together(now)
        if failures:
            self.failed += failures
            return f"held back by {len(failures)} findings about the steps together"
        if now.main_is_right():
            return "as it should be"
        last = self.job.steps[-1]
        try:
            outcome = push_main(target, final(), now)
        except Interrupted:
            raise
        except PublishError as error:
            self.failed.append(Failure.of(last, error))
            return "failed"
        self.ledger.add(LedgerEntry(self.repo, MAIN, outcome.commit, main_proof(self.job, now.commits)))
        if not isinstance(outcome, Committed):
            return "as it should be"
        self.committed = True
        return "published"

    def _together(self, now: Standing) -> tuple[Standing, tuple[Failure, ...]]:
        """What the steps show together; manifests are read only where ``main`` does not list it of these weights."""
        listing = read_listing(self.client, self.repo, now.branches.get(MAIN))
        if listing is not None and listing.lineage and listing.of_weights(now.records):
            self.lineage = listing.lineage
            listed = {each.step: each for each in listing.checkpoints}
            known = {step: listed[step].again(record) for step, record in now.records.items()}
            return replace(now, known=known, traced=self.lineage), ()
        traced = self._traced(now)
        self.lineage = traced.gates
        return replace(now, known=traced.with_distances(now.records), traced=traced.gates), traced.failures()

    def _traced(self, now: Standing) -> Traced:
        """The lineage of all published steps; manifests that this run did not make are read."""
        own = {step: each.manifest for step, each in self.done.items() if now.commits.get(step) == each.commit}
        others = [commit for step, commit in now.commits.items() if step not in own]
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda commit: read_manifest(self.client, self.repo, commit), others)
            return trace_manifests(self.job.release, [*own.values(), *(each for each in read if each is not None)])
