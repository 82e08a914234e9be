"""Are exactly the right steps there, each once, each with weights."""

from __future__ import annotations

from collections.abc import Iterator

from publish.audit.records import Branch, Evidence, Finding, Suite, named, steps_of
from publish.audit.weights import loaded

OTHER_WEIGHTS = (".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".pt", ".pth", ".ckpt")  # of other libraries


def has_weights(branch: Branch) -> bool:
    """Whether it holds a model in any form."""
    return loaded(branch) is not None or any(path.endswith(OTHER_WEIGHTS) for path in branch.files)


def missing_steps(suite: Suite) -> Iterator[Finding]:
    """Steps without a branch, and branches without weights."""
    found = {branch.step for branch in suite.steps}
    absent = tuple(step for step in sorted(set(suite.expectation.steps or ())) if step not in found)
    if absent:
        shown = ", ".join(map(str, absent[:6])) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
        yield Finding("missing-step", absent, f"there is no branch of {_steps(absent)} {shown}", repo=suite.repo)
    hollow = [branch for branch in suite.steps if not has_weights(branch)]
    if hollow:
        evidence = tuple(Evidence.of(branch, note=f"its files: {_files(branch)}") for branch in hollow)
        what = f"{named(hollow)}: the branch is there and holds no weights"
        yield Finding("missing-step", steps_of(hollow), what, evidence, suite.repo)


def unexpected_branches(suite: Suite) -> Iterator[Finding]:
    """Branches of steps that the schedule does not have, of a step that is there already, and ill-named ones."""
    due = suite.expectation.steps
    surplus = [branch for branch in suite.steps if due is not None and branch.step not in due]
    for branch in surplus:
        what = f"{branch.name} is no step of the schedule ({suite.expectation.source})"
        yield Finding("unexpected-branch", (branch.step,), what, (Evidence.of(branch),), suite.repo)
    for name in suite.odd:
        what = f"{name} looks like a step's branch and is not named like the others"
        yield Finding("unexpected-branch", (), what, (Evidence(name, ""),), suite.repo)
    by_label: dict[object, list[Branch]] = {}
    for branch in suite.steps:
        by_label.setdefault(branch.label, []).append(branch)
    for same in by_label.values():
        if len(same) > 1:
            what = f"{named(same)} all claim step {same[0].step}"
            evidence = tuple(map(Evidence.of, same))
            yield Finding("unexpected-branch", (same[0].step,), what, evidence, suite.repo)


def _steps(steps: tuple[int, ...]) -> str:
    return "step" if len(steps) == 1 else f"{len(steps)} steps:"


def _files(branch: Branch) -> str:
    return ", ".join(list(branch.files)[:5]) or "none"
