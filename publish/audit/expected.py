"""Which steps there must be: what was asked for, what was released, or what the names let guess; it says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publish.audit.records import Branch, Expectation
from publish.errors import ScheduleError
from publish.hub.checkpoints import CheckpointRecord
from publish.release import Release
from publish.schedule import FROM_CONFIG, NAMED

ALIKE = 0.6  # share of common steps among all, from which names are taken for those of a schedule


def expectation(
    steps: Sequence[Branch],
    records: Mapping[str, CheckpointRecord],
    schedule: str | tuple[int, ...] | None,
    release: Release | None,
) -> Expectation:
    """The steps to look for: the schedule asked for, else the release's, else ``checkpoints.json``'s, else a guess.

    Raises:
        ScheduleError: the schedule is ``from-config``: a published suite does not have the training config.
    """
    if schedule == FROM_CONFIG:
        fix = "name a schedule or the steps, or give the release file with --release"
        raise ScheduleError("a published suite has no training config to take a schedule from", "--schedule", fix)
    if schedule is not None:
        return _named(schedule, "as asked for")
    if release is not None and release.schedule != FROM_CONFIG:
        return _named(release.schedule, f"of {release.where}")
    if records:
        listed = tuple(sorted(record.step for record in records.values()))
        return Expectation(listed, "listed in checkpoints.json on main")
    found = frozenset(branch.step for branch in steps)
    likeness = {name: len(found & set(due)) / len(found | set(due)) for name, due in NAMED.items()}
    best = max(likeness, key=lambda name: likeness[name])
    if likeness[best] >= ALIKE and not any(branch.series for branch in steps):
        return Expectation(NAMED[best], f"{best}, guessed from the branches' names")
    return Expectation(None, "unknown: missing steps are not looked for unless --schedule names some")


def _named(schedule: str | tuple[int, ...], source: str) -> Expectation:
    if isinstance(schedule, str):
        return Expectation(NAMED[schedule], f"{schedule}, {source}")
    return Expectation(schedule, f"{len(schedule)} steps, {source}")
