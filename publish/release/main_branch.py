"""What ``main`` holds beyond the final step's files: the suite's card, its plots and ``checkpoints.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from publish.cards.facts import HUB, Plot, RunFacts
from publish.cards.render import render_suite
from publish.hub.branch_files import BranchFile
from publish.records import checkpoints
from publish.records.checkpoints import NO_REMARKS, CheckpointRecord, Checkpoints, PlotRecord, Remarks
from publish.records.manifest import Manifest
from publish.release.card_facts import README, run_facts, suite_facts
from publish.release.job import Job
from publish.release.main_plots import PlotsThere, main_plots
from publish.release_file import Release


def suite_card(
    release: Release,
    run: RunFacts,
    manifests: Mapping[int, Manifest],
    *,
    plots: Sequence[Plot] = (),
    remarks: Remarks = NO_REMARKS,
    hub: str = HUB,
    templates: Path | None = None,
) -> BranchFile:
    """The suite's card, from the manifests of all steps in order."""
    facts = suite_facts(release, run, manifests, plots=plots, remarks=remarks, hub=hub)
    return BranchFile.of_bytes(README, render_suite(facts, templates).encode())


def main_files(
    job: Job, records: Mapping[int, CheckpointRecord], remarks: Remarks, there: PlotsThere
) -> tuple[BranchFile, ...]:
    """What ``main`` has besides the final step's files.

    From the records of all steps, the remarks on them, and the plots that are there.
    """
    run, release = run_facts(job), job.release
    steps = {step: records[step] for step in job.steps}
    manifests = {step: each.published for step, each in steps.items() if each.published is not None}
    shown = main_plots(manifests, there)
    card = suite_card(release, run, manifests, plots=shown.plots, remarks=remarks, hub=job.hub, templates=job.templates)
    return card, *shown.files, listing(release, run, steps.values(), shown.records, remarks)


def listing(
    release: Release,
    run: RunFacts,
    records: Iterable[CheckpointRecord],
    plots: Iterable[PlotRecord] = (),
    remarks: Remarks = NO_REMARKS,
) -> BranchFile:
    """``checkpoints.json``: every step at its commit, and what all cards are made from."""
    listed = as_listed(release, records)
    document = Checkpoints(release.target, listed, run, tuple(plots), remarks.errata, remarks.lineage)
    return BranchFile.of_bytes(checkpoints.NAME, document.to_bytes())


def as_listed(release: Release, records: Iterable[CheckpointRecord]) -> tuple[CheckpointRecord, ...]:
    """``records`` with the equalities among them that the release declares."""
    records = tuple(records)
    steps = {each.step for each in records}
    return tuple(replace(each, equal=tuple(sorted(release.equals(each.step) & steps))) for each in records)
