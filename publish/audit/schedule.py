"""Which steps a suite should have, and the branches that are missing, empty, surplus or misnamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publish.audit.names import STEPS, Label, Names
from publish.audit.records import Branch, ExpectedSteps, Suite, shorten
from publish.errors import ScheduleError
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Evidence, Finding
from publish.release_file import Release
from publish.schedule import FROM_CONFIG, NAMED
from publish.text import some

MIN_OVERLAP = 0.6  # of the steps of both, from which the names are taken for those of a schedule


def expected_steps(
    names: Names,
    recorded: Mapping[str, CheckpointRecord],
    schedule: str | tuple[int, ...] | None,
    release: Release | None,
) -> ExpectedSteps:
    """The steps of the requested schedule, else of the release, else of ``checkpoints.json``, else of a guess.

    Raises:
        ScheduleError: the schedule is ``from-config``: a published suite does not have the training config.
    """
    if schedule == FROM_CONFIG:
        fix = "name a schedule or the steps, or give the release file with --release"
        raise ScheduleError("a published suite has no training config to take a schedule from", "--schedule", fix)
    if schedule is not None:
        return _resolve(schedule, "as requested")
    if release is not None and release.schedule != FROM_CONFIG:
        return _resolve(release.schedule, f"from {release.where}")
    if recorded:
        listed = tuple(sorted(record.step for record in recorded.values()))
        return ExpectedSteps(listed, "listed in checkpoints.json on main")
    found = frozenset(label.position for label in names.labels.values())
    overlap = {name: len(found & set(named)) / len(found | set(named)) for name, named in NAMED.items()}
    best = max(overlap, key=lambda name: overlap[name])
    if overlap[best] >= MIN_OVERLAP and names.axis == STEPS and not names.several_series:
        return ExpectedSteps(NAMED[best], f"{best}, guessed from the branch names")
    return ExpectedSteps(None, "unknown; name one with --schedule to find missing steps")


def _resolve(schedule: str | tuple[int, ...], source: str) -> ExpectedSteps:
    if isinstance(schedule, str):
        return ExpectedSteps(NAMED[schedule], f"{schedule}, {source}")
    return ExpectedSteps(schedule, f"{len(schedule)} steps, {source}")


def missing_steps(suite: Suite) -> Iterator[Finding]:
    """Steps without a branch, and branches without weights."""
    present = {branch.step for branch in suite.steps}
    absent = tuple(step for step in sorted(set(suite.expected.steps or ())) if step not in present)
    if absent:
        what = f"there is no branch for step {absent[0]}"
        if len(absent) > 1:
            what = f"there are no branches for {len(absent)} steps: {some(absent, 6)}"
        yield Finding("missing-step", (), absent, what, suite.repo)
    empty = [branch for branch in suite.steps if not branch.has_weights]
    if empty:
        evidence = [branch.evidence(note=f"its files: {some(branch.files, 5) or 'none'}") for branch in empty]
        yield suite.finding("missing-step", empty, f"{shorten(empty)}: the branch has no weights", evidence)


def unexpected_branches(suite: Suite) -> Iterator[Finding]:
    """Branches of steps that are not in the schedule, misnamed branches, and several branches of one step."""
    expected = suite.expected.steps
    for branch in suite.steps:
        if expected is not None and branch.step not in expected:
            what = f"{branch.name} is not in the schedule ({suite.expected.source})"
            yield suite.finding("unexpected-branch", [branch], what, [branch.evidence()])
    for name in suite.names.malformed:
        what = f"{name} looks like a step but is not named like the other steps"
        yield Finding("unexpected-branch", (name,), (), what, suite.repo, (Evidence(name),))
    by_label: dict[Label | None, list[Branch]] = {}
    for branch in suite.steps:
        by_label.setdefault(branch.label, []).append(branch)
    for same in by_label.values():
        if len(same) > 1:
            position = f"step {same[0].step}" if suite.names.axis == STEPS else f"{same[0].step:,} {suite.names.axis}"
            what = f"{shorten(same)} are all named after {position}"
            yield suite.finding("unexpected-branch", same, what, [branch.evidence() for branch in same])


def unplaced_names(suite: Suite) -> Iterator[str]:
    """A note for branches that are not examined because their names state no step."""
    if others := suite.names.others:
        names = "1 branch is" if len(others) == 1 else f"{len(others)} branches are"
        yield f"{names} not named like a step and not examined: {some(others, 6)}"
