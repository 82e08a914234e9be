"""Cards of a published release, regenerated from what is published: written, compared, or pushed where they changed."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from publish.cards import metadata
from publish.cards.facts import StepFacts
from publish.cards.lint import Finding, lint_card, lint_claims
from publish.cards.render import render_step
from publish.errors import HubError, PublishError, StorageError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.downloads import fetch_if_exists
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.hub.repository import Base, find_base, probe_write
from publish.hub.transaction import publish_branch
from publish.records import checkpoints, manifest
from publish.records.checkpoints import NO_NOTES, CheckpointRecord, Checkpoints
from publish.records.files import README
from publish.records.manifest import Manifest
from publish.records.run import RunFacts
from publish.release.facts import hub_address, run_facts, with_card
from publish.release.job import Job, make_job
from publish.release.main_branch import as_listed, listing, suite_card
from publish.release.main_plots import MainPlots, PlotsThere, main_plots
from publish.release.outcome import Failure
from publish.release.progress import Progress, Silent
from publish.release.state import MAIN, READERS, ReleaseState, read_manifest
from publish.release_file import Release
from publish.schedule import branch_of
from publish.text import some


@dataclass(frozen=True, slots=True)
class StepCard:
    """A step's branch: the record of its tip, and the sha256 of the card that is really there."""

    record: CheckpointRecord
    card: str | None

    @property
    def manifest(self) -> Manifest:
        """What the card is made from."""
        return self.record.manifest


@dataclass(frozen=True)
class PublishedCards:
    """A release as the Hub has it. ``listing`` is ``main``'s ``checkpoints.json``, None before ``main`` is published.

    ``main``: its files by path. ``missing``: steps that were asked for and are not published.
    """

    repo: str
    branches: Mapping[str, str]
    main: Mapping[str, TreeEntry]
    listing: Checkpoints | None
    steps: Mapping[int, StepCard]
    missing: tuple[int, ...]


def published_cards(client: Client, repo: str, steps: Callable[[], Iterable[int]]) -> PublishedCards:
    """Look at the steps that ``main`` lists; where it lists none yet, at ``steps()``.

    A step is known from ``checkpoints.json`` where that names its branch's tip; else its branch is read.

    Raises:
        HubError: no such repo, no access, no connection; a record that is none.
    """
    branches = list_branches(client, repo)
    main = {entry.path: entry for entry in list_tree(client, repo, branches[MAIN])} if MAIN in branches else {}
    listing = _listing(client, repo, branches[MAIN]) if checkpoints.NAME in main else None
    listed = {each.step: each for each in listing.checkpoints} if listing else {}
    found: dict[int, StepCard | None] = {
        step: StepCard(record, record.manifest.card)
        for step, record in listed.items()
        if branches.get(record.branch) == record.commit
    }
    unknown = [step for step in listed or steps() if step not in found]
    read = _read(client, repo, {step: branches.get(branch_of(step)) for step in unknown})
    found |= {step: _with_metadata(listed.get(step), card) for step, card in read.items()}
    there = {step: card for step, card in sorted(found.items()) if card is not None}
    return PublishedCards(repo, branches, main, listing, there, tuple(sorted(found.keys() - there.keys())))


def _with_metadata(listed: CheckpointRecord | None, card: StepCard | None) -> StepCard | None:
    """The step with what ``main`` lists of the same weights."""
    if listed is None or card is None:
        return card
    return replace(card, record=listed.merge_metadata(card.record))


def read_card(client: Client, repo: str, commit: str) -> str:
    """The card at a commit, in one request; empty where there is none."""
    content = fetch_if_exists(client, repo, commit, README)
    return "" if content is None else content.decode("utf-8", "replace")


def _listing(client: Client, repo: str, commit: str) -> Checkpoints | None:
    content = fetch_if_exists(client, repo, commit, checkpoints.NAME)
    return None if content is None else Checkpoints.from_bytes(content, f"{repo}@{commit}/{checkpoints.NAME}")


def _read(client: Client, repo: str, tips: Mapping[int, str | None]) -> dict[int, StepCard | None]:
    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        return dict(zip(tips, pool.map(lambda commit: _read_step(client, repo, commit), tips.values()), strict=True))


def _read_step(client: Client, repo: str, commit: str | None) -> StepCard | None:
    found = read_manifest(client, repo, commit) if commit else None
    if commit is None or found is None:
        return None
    card = fetch_if_exists(client, repo, commit, README)
    digest = None if card is None else hashlib.sha256(card).hexdigest()
    return StepCard(CheckpointRecord.of(found, commit), digest)


@dataclass(frozen=True, slots=True)
class Card:
    """A card as it should be. ``step`` is None for ``main``; ``reason`` says how the published one differs."""

    branch: str
    step: int | None
    file: BranchFile
    reason: str

    @property
    def changed(self) -> bool:
        return bool(self.reason)

    @property
    def text(self) -> str:
        assert isinstance(self.file.content, bytes)
        return self.file.content.decode()


@dataclass(frozen=True)
class ReleaseCards:
    """The cards of a release beside what is published; ``main``'s comes first, where ``main`` is published."""

    release: Release
    run: RunFacts
    published: PublishedCards
    plots: MainPlots
    cards: tuple[Card, ...]

    @property
    def changed(self) -> tuple[Card, ...]:
        return tuple(card for card in self.cards if card.changed)

    @property
    def findings(self) -> tuple[tuple[str, Finding], ...]:
        """What the lint says of every card, with its branch; and (under ``main``) of the notes against the config."""
        manifests = [each.manifest for each in self.published.steps.values()]
        others = [each.location for manifest in manifests for each in manifest.comparisons]
        named = (self.release.card.base_model, *(each.source.location for each in manifests), *others)
        known = {str(name).removeprefix("hf://").partition("@")[0] for name in named if name}
        known |= {name.partition("/")[0] for name in known}  # a step's folder stands with its run's
        names = [each.record.branch for each in self.published.steps.values()]
        found: list[tuple[str, Finding]] = []
        for card in self.cards:
            revision = None if card.step is None else card.branch
            files = self._files(card)
            lint = lint_card(card.text, self.release.target, names, revision, known=known, files=files)
            found.extend((card.branch, each) for each in lint)
        words = lint_claims(self.release.card.notes, self.run.config, datasets=self.release.card.datasets)
        return (*found, *((MAIN, each) for each in words))

    def _files(self, card: Card) -> set[str]:
        """The paths of the card's branch, with those that are about to be pushed."""
        if card.step is None:
            return {*self.published.main, *(file.path for file in self.plots.drawn)}
        return {file.path for file in self.published.steps[card.step].manifest.files}


def make_cards(release: Release, client: Client, templates: Path | None = None) -> ReleaseCards:
    """Write every card again and compare it with the published one: three requests where nothing changed.

    Before ``main`` is published the source tells which steps there will be, and its first config is read.

    Raises:
        HubError: no access, no connection, nothing published, or a listed step that is gone.
        CardError: a fact is missing, or a template is broken.
    """
    metadata.check(release.card, release.target)
    jobs: list[Job] = []

    def from_source() -> tuple[int, ...]:
        jobs.append(make_job(release, client=client, need_tokenizer=False))
        return jobs[0].steps

    published = published_cards(client, release.target, from_source)
    if not published.steps or (published.listing and published.missing):
        gone = ", ".join(f"step{step}" for step in published.missing[:5])
        what = (
            f"{len(published.missing)} listed steps are gone: {gone}" if published.listing else "nothing is published"
        )
        raise HubError(what, release.target, "publish the release first: publish all-steps")
    recorded = published.listing.run if published.listing else None
    if recorded is None and not jobs:
        from_source()
    run = recorded or run_facts(jobs[0])
    steps = jobs[0].steps if jobs else tuple(published.steps)
    hub = hub_address(client.endpoint)
    cards = [_step_card(release, run, steps, each, hub, templates) for each in published.steps.values()]
    plots = MainPlots()
    if published.listing is not None:
        manifests = [card.manifest for card in published.steps.values()]
        records = [card.record for card in published.steps.values()]
        plots = main_plots(records, PlotsThere(published.listing.plots, published.main))
        notes = published.listing.notes
        file = suite_card(release, run, manifests, plots=plots.plots, notes=notes, hub=hub, templates=templates)
        cards.insert(0, Card(MAIN, None, file, _why_main(release, published, file, plots)))
    return ReleaseCards(release, run, published, plots, tuple(cards))


def _step_card(
    release: Release, run: RunFacts, steps: tuple[int, ...], there: StepCard, hub: str, templates: Path | None
) -> Card:
    facts = StepFacts(release, run, steps, there.manifest, hub)
    file = BranchFile.of_bytes(README, render_step(facts, templates).encode())
    reason = "" if file.sha256 == there.card else "no card" if there.card is None else "another card"
    return Card(there.record.branch, there.record.step, file, reason)


def _why_main(release: Release, published: PublishedCards, card: BranchFile, plots: MainPlots) -> str:
    """How ``main`` differs from what it should show; empty where it does not."""
    assert published.listing is not None
    there = published.main.get(README)
    if there is None or there.lfs_sha256 is not None:
        return "no card" if there is None else "the card is in LFS"
    if there.oid != card.git_sha1():
        return "another card"
    if plots.drawn or plots.records != published.listing.plots:
        return "other plots"
    records = as_listed(release, (each.record for each in published.steps.values()))
    if published.listing.checkpoints != records:
        return f"{checkpoints.NAME} is not that of the branches' tips"
    return ""


def write_cards(cards: ReleaseCards, out: Path) -> Mapping[str, Path]:
    """Write all cards below ``out``, each as ``BRANCH/README.md``; branch -> path.

    Raises:
        StorageError: it cannot be written.
    """
    written = {}
    try:
        for card in cards.cards:
            path = out / card.branch / README
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(card.text.encode())
            written[card.branch] = path
        for file in cards.plots.drawn:
            path = out / MAIN / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            assert isinstance(file.content, bytes)
            path.write_bytes(file.content)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", error.filename or out, "name another --out") from error
    return written


# What changed in the cards, for people: one diff for all cards that changed alike.


_PLACE = re.compile(r"^@@ .* @@$", re.MULTILINE)
_NAMED = 6


def differences(cards: ReleaseCards, client: Client) -> Iterator[str]:
    """A unified diff from the published to the new card for each kind of change, headed by the branches that have it.

    Asks one request for each changed card.

    Raises:
        HubError: no access, no connection.
    """
    if not cards.changed:
        return
    with ThreadPoolExecutor(min(READERS, len(cards.changed))) as pool:
        texts = list(pool.map(lambda card: _diff(cards, client, card), cards.changed))
    alike: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        alike.setdefault(_PLACE.sub("@@", text), []).append(index)
    for indices in alike.values():
        names = [cards.changed[index].branch for index in indices]
        reason = cards.changed[indices[0]].reason
        yield f"{some(names, _NAMED)}: {reason}\n{texts[indices[0]]}"


def _diff(cards: ReleaseCards, client: Client, card: Card) -> str:
    there = read_card(client, cards.release.target, cards.published.branches[card.branch])
    lines = difflib.unified_diff(there.splitlines(), card.text.splitlines(), lineterm="", n=1)
    return "".join(f"{line}\n" for line in islice(lines, 2, None))  # without the names of two files


WORKERS = 4


@dataclass(frozen=True, slots=True)
class Pushed:
    """The branches that got a commit, and those that could not get one."""

    branches: tuple[str, ...]
    failed: tuple[Failure, ...]


NOTHING_PUSHED = Pushed((), ())


def update_stale_cards(job: Job, client: Client, state: ReleaseState) -> Pushed:
    """Push the cards of the steps of which only the card is stale. No weight is read for it."""
    stale = state.stale_cards()
    if not stale:
        return NOTHING_PUSHED
    cards = make_cards(job.release, client, job.templates)
    chosen = tuple(card for card in cards.cards if card.step is None or card.step in stale)
    return push_cards(replace(cards, cards=chosen), client, Silent())


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
                progress.step(card.branch, "failed" if failure else "published")
        except KeyboardInterrupt:
            if client.stop is not None:
                client.stop.set()
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
            failure = Failure.of(card.branch, card.step, error)
            self.failed.append(failure)
            return failure
        self.manifests[card.step] = record
        self.records[card.step] = self.records[card.step].merge_metadata(CheckpointRecord.of(record, commit))
        return None

    def main(self) -> None:
        card = next(each for each in self.cards.cards if each.branch == MAIN)
        plots = self.cards.plots
        before = self.cards.published.listing
        notes = before.notes if before else NO_NOTES
        listed = listing(self.cards.release, self.cards.run, self.records.values(), plots.records, notes)
        files = [card.file, *plots.drawn, listed]
        last = max(self.records)
        if last in self.manifests:  # main is the final step, its manifest included
            files.append(BranchFile.of_bytes(manifest.NAME, self.manifests[last].to_bytes()))
        try:
            self._commit(MAIN, self.cards.published.branches[MAIN], files, f"Card and {checkpoints.NAME}")
        except PublishError as error:
            self.failed.append(Failure.of(MAIN, None, error))

    def _commit(self, branch: str, tip: str, files: Iterable[BranchFile], message: str) -> str:
        """The branch's commit with ``files`` in place of those of their names, all others kept as they are."""
        new: Mapping[str, BranchFile] = {file.path: file for file in files}
        kept = [BranchFile.kept(each) for each in list_tree(self.client, self.repo, tip) if each.path not in new]
        published = publish_branch(self.client, self.base, branch, [*new.values(), *kept], message, tip=tip)
        if published.committed:
            self.made.append(branch)
        return published.commit
