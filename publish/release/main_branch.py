"""What ``main`` holds beyond the final step's files: the suite's card, its plots and ``checkpoints.json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from publish.cards.facts import HUB, Plot, SuiteFacts
from publish.cards.render import render_suite
from publish.errors import PublishError
from publish.hub.branch_files import GITATTRIBUTES, BranchFile, differences
from publish.hub.downloads import fetch_file
from publish.hub.reads import list_tree
from publish.hub.repository import Base
from publish.hub.transaction import publish_branch
from publish.interrupt import Interrupted
from publish.records import checkpoints
from publish.records.checkpoints import NO_NOTES, CheckpointRecord, Checkpoints, PlotRecord, SuiteNotes
from publish.records.files import README
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.records.run import RunFacts
from publish.release.facts import run_facts
from publish.release.job import Job
from publish.release.main_plots import PlotsThere, main_plots
from publish.release.outcome import Failure, MainResult
from publish.release.repair import BranchRepair
from publish.release.state import MAIN, READERS, ReleaseState, read_manifest
from publish.release.statistics import suite_statistics
from publish.release_file import Release
from publish.schedule import branch_of
from publish.text import count


def main_files(
    job: Job, records: Mapping[int, CheckpointRecord], notes: SuiteNotes, there: PlotsThere
) -> tuple[BranchFile, ...]:
    """What ``main`` has besides the final step's files; ``there`` are the plots that it has already."""
    run, release = run_facts(job), job.release
    steps = [records[step] for step in job.steps]
    shown = main_plots(steps, there)
    manifests = [record.manifest for record in steps]
    card = suite_card(release, run, manifests, plots=shown.plots, notes=notes, hub=job.hub, templates=job.templates)
    return card, *shown.files, listing(release, run, steps, shown.records, notes)


def suite_card(
    release: Release,
    run: RunFacts,
    manifests: Sequence[Manifest],
    *,
    plots: Sequence[Plot] = (),
    notes: SuiteNotes = NO_NOTES,
    hub: str = HUB,
    templates: Path | None = None,
) -> BranchFile:
    """The suite's card, from the manifests of all steps in order."""
    facts = SuiteFacts(release, run, tuple(manifests), tuple(plots), notes, hub)
    return BranchFile.of_bytes(README, render_suite(facts, templates).encode())


def listing(
    release: Release,
    run: RunFacts,
    records: Iterable[CheckpointRecord],
    plots: Iterable[PlotRecord] = (),
    notes: SuiteNotes = NO_NOTES,
) -> BranchFile:
    """``checkpoints.json``: every step at its commit, and what all cards are made from."""
    document = Checkpoints(release.target, as_listed(release, records), run, tuple(plots), notes)
    return BranchFile.of_bytes(checkpoints.NAME, document.to_bytes())


def as_listed(release: Release, records: Iterable[CheckpointRecord]) -> tuple[CheckpointRecord, ...]:
    """``records`` with the equalities among them that the release declares."""
    records = tuple(records)
    steps = {record.step for record in records}
    return tuple(replace(record, equal=tuple(sorted(release.equals(record.step) & steps))) for record in records)


def is_finished(state: ReleaseState) -> bool:
    """Whether nothing has to be written, neither to a chosen step nor to ``main``.

    Raises:
        HubError: no access, no connection.
    """
    if state.to_make() or state.foreign() or state.stale_cards():
        return False
    return len(state.records) < len(state.job.steps) or not _differences(state)


def publish_main(state: ReleaseState, base: Base, own: Iterable[Manifest], repair: BranchRepair | None) -> MainResult:
    """Commit ``main`` once every step of the schedule is published and the steps together show nothing wrong.

    ``main`` copies the weights of the final step's branch on the Hub; nothing is made twice or uploaded twice. ``own``
    are the manifests that this process committed: the others are read.

    Raises:
        HubError: no access, no connection. Interrupted: Ctrl-C.
    """
    job, client = state.job, state.client
    if remaining := len(job.steps) - len(state.records):
        verb = "is" if remaining == 1 else "are"
        return MainResult("waiting", f"updated once {count(remaining, 'remaining step')} {verb} published")
    records, lineage, failures = _trace(state, own)
    if failures:
        return MainResult("held", f"held back by {count(len(failures), 'finding')} about the suite", lineage, failures)
    listed = state.listing.notes.errata if state.listing else ()
    errata = repair.errata(listed) if repair else listed
    notes = SuiteNotes(lineage, errata)
    if errata == listed and not _differences(state, records, notes):
        return MainResult("unchanged", "as it should be", lineage)
    final = records[job.steps[-1]]
    message = f"{job.release.card.title}: {count(len(records), 'checkpoint')}, step {final.step} on {MAIN}"
    try:
        files = [*_final_files(state, final), *main_files(job, records, notes, _plots(state, repair))]
        tip = repair.tip_for(MAIN, files) if repair else state.tips.get(MAIN)
        published = publish_branch(client, base, MAIN, files, message, tip=tip)
    except Interrupted:
        raise
    except PublishError as error:
        return MainResult("failed", error.what, lineage, (Failure.of(MAIN, None, error),))
    if not published.committed:
        return MainResult("unchanged", "as it should be", lineage)
    return MainResult("published", f"step {final.step:,} with the suite's card", lineage)


def _trace(
    state: ReleaseState, own: Iterable[Manifest]
) -> tuple[dict[int, CheckpointRecord], tuple[Gate, ...], tuple[Failure, ...]]:
    """The records with what the suite says of them, the gates over the suite, and its findings as failures.

    What ``main`` lists is taken over while it lists the same weights; else every manifest is read.
    """
    records, listing = state.records, state.listing
    if listing is not None and listing.notes.lineage and listing.same_weights(records):
        known = {record.step: record for record in listing.checkpoints}
        return {step: known[step].merge_metadata(record) for step, record in records.items()}, listing.notes.lineage, ()
    manifests = {manifest.step: manifest for manifest in own if _is_tip(records, manifest)}
    others = [record.commit for step, record in records.items() if step not in manifests]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda commit: read_manifest(state.client, state.job.model.repo, commit), others)
        suite = suite_statistics(state.job.release, [*manifests.values(), *(each for each in read if each)])
    failures = tuple(
        Failure(branch_of(finding.steps[-1]), finding.steps[-1], finding.kind, finding.detail, finding.fix)
        for finding in suite.findings
    )
    return suite.with_distances(records), suite.gates, failures


def _is_tip(records: Mapping[int, CheckpointRecord], manifest: Manifest) -> bool:
    record = records.get(manifest.step)
    return record is not None and record.manifest_sha256 == manifest.digest


def _differences(
    state: ReleaseState, records: Mapping[int, CheckpointRecord] | None = None, notes: SuiteNotes | None = None
) -> tuple[str, ...]:
    """How ``main`` differs from the final step's files, the suite's card and the list of all steps at their tips."""
    job = state.job
    if MAIN not in state.tips:
        return (f"{MAIN} does not exist",)
    records = records or state.records
    if notes is None:
        listing = state.listing
        lineage = listing.notes.lineage if listing and listing.same_weights(records) else ()
        notes = SuiteNotes(lineage, listing.notes.errata if listing else ())
    final = list_tree(state.client, job.model.repo, records[job.steps[-1]].commit)
    wanted = {entry.path: BranchFile.kept(entry) for entry in final if entry.path not in (README, GITATTRIBUTES)}
    wanted |= {file.path: file for file in main_files(job, records, notes, _plots(state))}
    return differences(state.main_tree, wanted)


def _final_files(state: ReleaseState, final: CheckpointRecord) -> Iterator[BranchFile]:
    """The final step's files but its card: large ones to be copied on the Hub, small ones fetched."""
    client, repo = state.client, state.job.model.repo
    for entry in list_tree(client, repo, final.commit):
        if entry.path in (README, GITATTRIBUTES):
            continue
        if entry.lfs_sha256 is not None:
            yield BranchFile.copied(entry, final.commit)
        else:
            yield BranchFile.of_bytes(entry.path, fetch_file(client, repo, final.commit, entry))


def _plots(state: ReleaseState, repair: BranchRepair | None = None) -> PlotsThere:
    """The plots that ``main`` has. A repair may start from an emptied branch and takes none over."""
    if state.listing is None or repair is not None:
        return PlotsThere()
    return PlotsThere(state.listing.plots, {entry.path: entry for entry in state.main_tree})
