"""Are exactly the right steps there, each once, each with weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publish.audit.records import MAIN, Branch, Expectation, Label, Suite, evidence_of, named, steps_of
from publish.audit.weights import loaded
from publish.errors import ScheduleError
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Evidence, Finding
from publish.release_file import Release
from publish.schedule import FROM_CONFIG, NAMED, looks_like_a_step
from publish.text import some

# Which branches are steps: the conventions of published suites, and a pattern of one's own.


_NUMBER = r"(?P<step>0|[1-9]\d{0,11})"
_FIX = "write it as ckpt_{step}, or as a regular expression with a group (?P<step>...); conventions are "

CONVENTIONS: Mapping[str, re.Pattern[str]] = {
    "step{step}": re.compile(rf"step{_NUMBER}"),  # Pythia
    "global_step{step}": re.compile(rf"global_step{_NUMBER}"),  # DeepSpeed's folders
    "step-{step}": re.compile(rf"step-{_NUMBER}"),
    "step_{step}": re.compile(rf"step_{_NUMBER}"),
    # OLMo 1 (step1000-tokens4B) and OLMo 2 (stage1-step1000-tokens5B, stage2-ingredient1-step1000-tokens5B)
    "stage-step-tokens": re.compile(rf"(?:(?P<series>stage\d+(?:-ingredient\d+)?)-)?step{_NUMBER}-tokens\d+B"),
    "ckpt_{step}": re.compile(rf"ckpt_{_NUMBER}"),  # Amber, LLM360
    "checkpoint-{step}": re.compile(rf"checkpoint-{_NUMBER}"),  # transformers' Trainer
    "iter_{step}": re.compile(r"iter_(?P<step>\d{1,12})"),  # Megatron, with leading zeros
}
_OTHER_TRACES = re.compile(r"(?i)(stage\d|ckpt|checkpoint|iter)[-_ ]?")


@dataclass(frozen=True, slots=True)
class Names:
    """Branches by what their names say. ``odd`` were meant to be steps and are not of the suite's convention."""

    convention: str
    labels: Mapping[str, Label]
    odd: tuple[str, ...]


def read_names(branches: Iterable[str], pattern: str | None = None) -> Names:
    """Tell steps from other branches, by ``pattern`` or by the convention that fits most of the names.

    Raises:
        ScheduleError: the pattern is none, or two branches of one series claim one step under it.
    """
    names = sorted(name for name in branches if name != MAIN)
    if pattern is not None:
        return _read(names, pattern, CONVENTIONS.get(pattern) or _compile(pattern))
    readings = [_read(names, name, convention) for name, convention in CONVENTIONS.items()]
    return max(readings, key=lambda reading: len(reading.labels))  # the first of equals


def _read(names: Iterable[str], convention: str, pattern: re.Pattern[str]) -> Names:
    labels: dict[str, Label] = {}
    odd = []
    for name in names:
        if found := pattern.fullmatch(name):
            labels[name] = Label(int(found["step"]), found.groupdict().get("series") or "")
        elif _meant_as_step(name):
            odd.append(name)
    return Names(convention, labels, tuple(odd))


def _meant_as_step(name: str) -> bool:
    other = any(pattern.fullmatch(name) for pattern in CONVENTIONS.values())
    return other or looks_like_a_step(name) or (_OTHER_TRACES.match(name) is not None and name[-1].isdigit())


def _compile(pattern: str) -> re.Pattern[str]:
    conventions = ", ".join(CONVENTIONS)
    if "{step}" in pattern:
        before, _, after = pattern.partition("{step}")
        return re.compile(re.escape(before) + r"(?P<step>\d{1,12})" + re.escape(after))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ScheduleError(f"no regular expression: {error}", f"--branches {pattern}", _FIX + conventions) from error
    if "step" not in compiled.groupindex:
        raise ScheduleError("the pattern does not say where the step is", f"--branches {pattern}", _FIX + conventions)
    return compiled


# Which steps there must be: what was asked for, what was released, or what the names let guess; it says which.


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


OTHER_WEIGHTS = (".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".pt", ".pth", ".ckpt")  # of other libraries


def has_weights(branch: Branch) -> bool:
    """Whether it holds a model in any form."""
    return loaded(branch) is not None or any(path.endswith(OTHER_WEIGHTS) for path in branch.files)


def missing_steps(suite: Suite) -> Iterator[Finding]:
    """Steps without a branch, and branches without weights."""
    found = {branch.step for branch in suite.steps}
    absent = tuple(step for step in sorted(set(suite.expectation.steps or ())) if step not in found)
    if absent:
        yield Finding(
            "missing-step", absent, f"there is no branch of {_steps(absent)} {some(absent, 6)}", repo=suite.repo
        )
    hollow = [branch for branch in suite.steps if not has_weights(branch)]
    if hollow:
        evidence = tuple(evidence_of(branch, note=f"its files: {_files(branch)}") for branch in hollow)
        what = f"{named(hollow)}: the branch is there and holds no weights"
        yield Finding("missing-step", steps_of(hollow), what, evidence, suite.repo)


def unexpected_branches(suite: Suite) -> Iterator[Finding]:
    """Branches of steps that the schedule does not have, of a step that is there already, and ill-named ones."""
    due = suite.expectation.steps
    surplus = [branch for branch in suite.steps if due is not None and branch.step not in due]
    for branch in surplus:
        what = f"{branch.name} is no step of the schedule ({suite.expectation.source})"
        yield Finding("unexpected-branch", (branch.step,), what, (evidence_of(branch),), suite.repo)
    for name in suite.odd:
        what = f"{name} looks like a step's branch and is not named like the others"
        yield Finding("unexpected-branch", (), what, (Evidence(name, ""),), suite.repo)
    by_label: dict[object, list[Branch]] = {}
    for branch in suite.steps:
        by_label.setdefault(branch.label, []).append(branch)
    for same in by_label.values():
        if len(same) > 1:
            what = f"{named(same)} all claim step {same[0].step}"
            evidence = tuple(map(evidence_of, same))
            yield Finding("unexpected-branch", (same[0].step,), what, evidence, suite.repo)


def _steps(steps: tuple[int, ...]) -> str:
    return "step" if len(steps) == 1 else f"{len(steps)} steps:"


def _files(branch: Branch) -> str:
    return ", ".join(list(branch.files)[:5]) or "none"
