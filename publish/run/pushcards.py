"""Push the cards that changed: one commit a branch, with README.md and publish.json and nothing else; then ``main``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from publish.errors import HubError, PublishError
from publish.hub import checkpoints, manifest
from publish.hub.branchfile import BranchFile
from publish.hub.cards import read_manifest
from publish.hub.checkpoints import NO_REMARKS, CheckpointRecord
from publish.hub.manifest import Manifest
from publish.hub.repository import Base, find_base, probe_write
from publish.hub.transaction import Committed, publish_branch
from publish.run.cardfacts import with_card
from publish.run.cards import MAIN, Card, ReleaseCards
from publish.run.outcome import Failure
from publish.run.progress import Progress
from publish.run.suite import listing
from publish.wire.client import Client
from publish.wire.repo import list_tree

WORKERS = 4


@dataclass(frozen=True, slots=True)
class Pushed:
    """The branches that got a commit, and the steps that did not for a reason (-1: ``main``)."""

    branches: tuple[str, ...]
    failed: tuple[Failure, ...]


def push_cards(cards: ReleaseCards, client: Client, progress: Progress) -> Pushed:
    """Commit the changed cards. One that fails does not stop the others; ``main`` comes last and lists what is there.

    Raises:
        HubError: no right to write there. Interrupted: Ctrl-C; branches are untouched or complete.
    """
    if not cards.changed:
        return Pushed((), ())
    probe_write(client, cards.release.target)
    push = _Push(cards, client, find_base(client, cards.release.target))
    todo = [card for card in cards.changed if card.step is not None]
    progress.start(len(cards.cards), len(cards.cards) - len(todo) - 1)
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for card, failure in zip(todo, pool.map(push.step, todo), strict=True):
                progress.step(-1 if card.step is None else card.step, "failed" if failure else "published")
        except KeyboardInterrupt:
            if client.interrupt is not None:
                client.interrupt.set()
            pool.shutdown(cancel_futures=True)
            raise
    if cards.published.listing is not None:
        push.main()
    return Pushed(tuple(push.made), tuple(push.failed))


class _Push:
    def __init__(self, cards: ReleaseCards, client: Client, base: Base) -> None:
        self.cards, self.client, self.base = cards, client, base
        self.repo = cards.release.target
        self.manifests: dict[int, Manifest] = {}  # of steps pushed now
        self.records: dict[int, CheckpointRecord] = {s: each.record for s, each in cards.published.steps.items()}
        self.made: list[str] = []
        self.failed: list[Failure] = []

    def step(self, card: Card) -> Failure | None:
        assert card.step is not None
        tip = self.cards.published.steps[card.step].record.commit
        try:
            record = read_manifest(self.client, self.repo, tip)
            if record is None:
                raise HubError(f"{card.branch} has no {manifest.NAME}", self.repo, "publish the step again")
            record = with_card(record, card.file)
            files = [card.file, BranchFile.of_bytes(manifest.NAME, record.to_bytes())]
            commit = self._commit(card.branch, tip, files, f"Card of step {card.step:,}")
        except PublishError as error:
            failure = Failure.of(card.step, error)
            self.failed.append(failure)
            return failure
        self.manifests[card.step] = record
        self.records[card.step] = self.records[card.step].again(CheckpointRecord.of(record, commit))
        return None

    def main(self) -> None:
        card = next(each for each in self.cards.cards if each.branch == MAIN)
        plots = self.cards.plots
        before = self.cards.published.listing
        remarks = before.remarks if before else NO_REMARKS
        listed = listing(self.cards.release, self.cards.run, self.records.values(), plots.records, remarks)
        files = [card.file, *plots.drawn, listed]
        last = max(self.records)
        if last in self.manifests:  # main is the final step, its manifest included
            files.append(BranchFile.of_bytes(manifest.NAME, self.manifests[last].to_bytes()))
        try:
            self._commit(MAIN, self.cards.published.branches[MAIN], files, f"Card and {checkpoints.NAME}")
        except PublishError as error:
            self.failed.append(Failure.of(-1, error))

    def _commit(self, branch: str, tip: str, files: Iterable[BranchFile], message: str) -> str:
        """The branch's commit with ``files`` in place of those of their names, all others kept as they are."""
        new: Mapping[str, BranchFile] = {file.path: file for file in files}
        kept = [BranchFile.kept(each) for each in list_tree(self.client, self.repo, tip) if each.path not in new]
        outcome = publish_branch(self.client, self.base, branch, [*new.values(), *kept], message, tip=tip)
        if isinstance(outcome, Committed):
            self.made.append(branch)
        return outcome.commit
