"""All cards of a release written again from what is published, compared with what is there, and pushed where changed.

No checkpoint is opened and no weight read: once ``main`` is published, its ``checkpoints.json`` has every fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publish.card import metadata
from publish.card.claims import lint_claims
from publish.card.lint import Finding, lint_card
from publish.card.render import render_step
from publish.card.run import RunFacts
from publish.errors import HubError, StorageError
from publish.hub import checkpoints
from publish.hub.branchfile import BranchFile
from publish.hub.cards import PublishedCards, StepCard, published_cards
from publish.release import Release
from publish.run.cardfacts import README, hub_address, run_facts, step_facts
from publish.run.job import Job, make_job
from publish.run.plots import MainPlots, PlotsThere, main_plots
from publish.run.suite import as_listed, suite_card
from publish.source.sources import Sources
from publish.wire.client import Client

MAIN = "main"


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
        jobs.append(make_job(release, sources=Sources(client), need_tokenizer=False))
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
        manifests = {step: each.manifest for step, each in published.steps.items()}
        plots = main_plots(manifests, PlotsThere(published.listing.plots, published.main))
        remarks = published.listing.remarks
        file = suite_card(release, run, manifests, plots=plots.plots, remarks=remarks, hub=hub, templates=templates)
        cards.insert(0, Card(MAIN, None, file, _why_main(release, published, file, plots)))
    return ReleaseCards(release, run, published, plots, tuple(cards))


def _step_card(
    release: Release, run: RunFacts, steps: tuple[int, ...], there: StepCard, hub: str, templates: Path | None
) -> Card:
    facts = step_facts(release, run, steps, there.manifest, hub=hub)
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
    if published.listing.run is None or published.listing.checkpoints != records:
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
