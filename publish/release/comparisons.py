"""The comparisons that a release asks for: the step as it was converted, with a model elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from publish.compare.model import HfModel, Provenance, open_model
from publish.compare.pair import ModelFacts, compare
from publish.compare.report import Report
from publish.errors import ReleaseError
from publish.hf.checkpoint import HfCheckpoint
from publish.records.manifest import ComparisonRecord
from publish.release.job import Job
from publish.release_file import Release, WantedComparison
from publish.schedule import branch_of, step_of
from publish.sources.files import LocalFiles
from publish.sources.runs import Location, parse_location


def check_comparisons(release: Release, steps: tuple[int, ...]) -> None:
    """Refuse a comparison of a step that the release does not have.

    Raises:
        ReleaseError: it names the step. SourceError: a location is neither a folder nor a repo.
    """
    for wanted in release.compare:
        if wanted.step not in steps:
            what = f"compare names step {wanted.step:,}, which is not in the schedule"
            raise ReleaseError(what, release.where, "name a step of the schedule")
        parse_location(wanted.other, release.base)


def compared_with(release: Release, step: int) -> tuple[str, ...]:
    """The models that ``step`` shall be compared with, as its manifest names them.

    Raises:
        SourceError: a location is neither a folder nor a repo.
    """
    others = (wanted.other for wanted in release.compare if wanted.step == step)
    return tuple(_name(parse_location(other, release.base)) for other in others)


def comparisons_of(
    job: Job, step: int, folder: Path, provenance: Callable[[], Provenance]
) -> tuple[ComparisonRecord, ...]:
    """What the release wants ``step`` compared with; ``folder`` holds it, ``provenance`` gives the raw checkpoint's.

    Raises:
        PublishError: the other model cannot be read.
    """
    wanted = [comparison for comparison in job.release.compare if comparison.step == step]
    return tuple(_compared(job, comparison, folder, provenance()) for comparison in wanted)


def _compared(job: Job, wanted: WantedComparison, folder: Path, provenance: Provenance) -> ComparisonRecord:
    location = parse_location(wanted.other, job.release.base)
    ours, theirs = HfModel(HfCheckpoint.open(LocalFiles(folder)), wanted.step), open_model(location, wanted.step)
    try:
        found = compare(ours, theirs)
    finally:
        ours.close()
        theirs.close()
    ours_named = ModelFacts(f"{job.release.target}@{branch_of(wanted.step)}", "neox", provenance)
    return Report(replace(found, left=ours_named, right=replace(found.right, where=_name(location)))).record


def _name(location: Location) -> str:
    """A location as the world sees it: a folder by its name, a step's folder by its run's and its own."""
    if location.folder is None:
        return str(location)
    folder = location.folder.resolve()
    return folder.name if step_of(folder.name) is None else f"{folder.parent.name}/{folder.name}"
