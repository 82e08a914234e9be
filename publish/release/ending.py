"""What comes after the steps of a release: what they show together, and ``main``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from publish.errors import PublishError
from publish.interrupt import Interrupted
from publish.records.checkpoints import CheckpointRecord
from publish.records.gates import Gate
from publish.release.ledger import LedgerEntry
from publish.release.lineage import settle
from publish.release.mending import Mending
from publish.release.outcome import Done, Failure
from publish.release.preflight import Target, push_main
from publish.release.state import MAIN, Standing, branches_of, main_proof, stand
from publish.release.step import ProvenStep


class Ending:
    """``before`` is where the release stood, ``done`` what was added; the rest is filled in by :meth:`main`."""

    def __init__(self, before: Standing, done: Mapping[int, Done], mending: Mending | None = None) -> None:
        self.job, self.client, self.ledger = before.job, before.client, before.ledger
        self.repo = before.job.release.target
        self.done, self.mending = done, mending
        self.lineage: tuple[Gate, ...] = ()
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
        own = {step: each.manifest for step, each in self.done.items() if now.commits.get(step) == each.commit}
        settled = settle(now, own)
        now, self.lineage = settled.standing, settled.gates
        if settled.failures:
            self.failed += settled.failures
            return f"held back by {len(settled.failures)} findings about the steps together"
        if self.mending:
            now = replace(now, mended=self.mending.errata(now.remarks.errata))
        listed = now.listing.errata if now.listing else ()
        if now.remarks.errata == listed and now.main_is_right():
            return "as it should be"
        last = self.job.steps[-1]
        try:
            outcome = push_main(target, final(), now, self.mending.begin if self.mending else None)
        except Interrupted:
            raise
        except PublishError as error:
            self.failed.append(Failure.of(last, error))
            return "failed"
        self.ledger.add(LedgerEntry(self.repo, MAIN, outcome.commit, main_proof(self.job, now.commits)))
        if not outcome.committed:
            return "as it should be"
        self.committed = True
        return "published"
