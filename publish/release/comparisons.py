"""The comparisons that a release asks for: the step as it was converted, with a model elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from publish.compare.model import HfModel, Provenance, open_model
from publish.compare.pair import ModelFacts, compare
from publish.compare.report import COLUMNS, Report
from publish.errors import ReleaseError
from publish.hf.checkpoint import HfCheckpoint
from publish.plots.records import Ratio
from publish.records.manifest import ComparisonRecord
from publish.release.job import Job
from publish.release_file import Release, WantedComparison
from publish.schedule import step_of
from publish.sources.files import LocalFiles
from publish.sources.runs import Location, parse_location


def check_comparisons(release: Release, steps: tuple[int, ...]) -> None:
    """Refuse a comparison of a step that the release does not have.

    Raises:
        ReleaseError: it names the step. SourceError: the location is none.
    """
    for each in release.compare:
        if each.step not in steps:
            what = f"compare names step {each.step:,}, which the schedule does not have"
            raise ReleaseError(what, release.where, "name a step of the schedule")
        parse_location(each.other, release.base)


def compared_with(release: Release, step: int) -> tuple[str, ...]:
    """The models that ``step`` shall be compared with, as its manifest names them.

    Raises:
        SourceError: a location is none.
    """
    wanted = (each for each in release.compare if each.step == step)
    return tuple(_name(parse_location(each.other, release.base)) for each in wanted)


def comparisons_of(
    job: Job, step: int, folder: Path, provenance: Callable[[], Provenance]
) -> tuple[ComparisonRecord, ...]:
    """What the release wants ``step`` compared with; ``folder`` holds it, ``provenance`` gives the raw checkpoint's.

    Raises:
        PublishError: the other model cannot be read.
    """
    wanted = [each for each in job.release.compare if each.step == step]
    return tuple(_compared(job, each, folder, provenance()) for each in wanted)


def _compared(job: Job, wanted: WantedComparison, folder: Path, provenance: Provenance) -> ComparisonRecord:
    location = parse_location(wanted.other, job.release.base)
    ours, theirs = HfModel(HfCheckpoint.open(LocalFiles(folder)), wanted.step), open_model(location, wanted.step)
    try:
        found = compare(ours, theirs)
    finally:
        ours.close()
        theirs.close()
    name, other = f"{job.release.target}@step{wanted.step}", _name(location)
    report = Report(
        replace(
            found,
            left=ModelFacts(name, "neox", provenance),
            right=replace(found.right, where=other),
        )
    )
    return ComparisonRecord(
        location=other,
        title=f"Step {wanted.step:,} (left) and {other} (right)",
        verdict=f"{report.sentence}: {report.counted}.",
        reasons=report.verdict.reasons,
        columns=COLUMNS,
        rows=report.rows(),
        ratios=tuple(
            Ratio(each.name, _short(each.ratio), _short(each.error))
            for each in report.tests.types
            if math.isfinite(each.ratio)
        ),
    )


def _short(value: float) -> float:
    """Six digits: more are not in a picture."""
    return float(f"{value:.6g}")


def _name(location: Location) -> str:
    """A location as the world sees it: a folder by its name, a step's folder by its run's and its own."""
    if location.folder is None:
        return str(location)
    folder = location.folder.resolve()
    return folder.name if step_of(folder.name) is None else f"{folder.parent.name}/{folder.name}"
