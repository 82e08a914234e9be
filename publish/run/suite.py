"""What ``main`` holds beyond the final step's files: the suite's card and ``checkpoints.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from publish.card.facts import HUB
from publish.card.render import render_suite
from publish.card.run import RunFacts
from publish.hub import checkpoints
from publish.hub.branchfile import BranchFile
from publish.hub.checkpoints import CheckpointRecord, Checkpoints
from publish.hub.manifest import Manifest
from publish.release import Release
from publish.run.cardfacts import README, run_facts, suite_facts
from publish.run.job import Job


def suite_card(
    release: Release,
    run: RunFacts,
    manifests: Mapping[int, Manifest],
    *,
    hub: str = HUB,
    templates: Path | None = None,
) -> BranchFile:
    """The suite's card, from the manifests of all steps in order."""
    return BranchFile.of_bytes(README, render_suite(suite_facts(release, run, manifests, hub=hub), templates).encode())


def main_files(job: Job, records: Mapping[int, CheckpointRecord]) -> list[BranchFile]:
    """What ``main`` has besides the final step's files, from the records of all steps."""
    run, steps = run_facts(job), {step: records[step] for step in job.steps}
    manifests = {step: each.published for step, each in steps.items() if each.published is not None}
    card = suite_card(job.release, run, manifests, hub=job.hub, templates=job.templates)
    return [card, listing(job.release.target, run, steps.values())]


def listing(repo: str, run: RunFacts, records: Iterable[CheckpointRecord]) -> BranchFile:
    """``checkpoints.json``: every step at its commit, and what all cards are made from."""
    return BranchFile.of_bytes(checkpoints.NAME, Checkpoints(repo, tuple(records), run).to_bytes())
