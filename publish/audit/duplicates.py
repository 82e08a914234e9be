"""Branches that hold each other's weights, and a `main` that is not the last step. By digests alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from publish.audit.records import Branch, Evidence, Finding, Suite, named, steps_of
from publish.audit.weights import FORMATS, weight_sets

# The learning rate is 0 at GPT-NeoX's first iteration, so step 1 equals step 0 in every suite trained before May 2026
# (pythia#83, gpt-neox#1373).
FIRST_STEPS = frozenset({0, 1})


def duplicate_weights(suite: Suite) -> Iterator[Finding]:
    """One finding for each set of steps whose weights are equal, in either format."""
    told: set[tuple[str, ...]] = set()
    for form in FORMATS:
        for same in equal_sets(suite.steps, form.name):
            names = tuple(branch.name for branch in same)
            if names in told or is_declared(suite, same):
                continue
            told.add(names)
            yield Finding(
                "duplicate-weights",
                steps_of(same),
                f"{named(same)} hold the same weights{_main_too(suite, same, form.name)}",
                tuple(Evidence.of(branch, entry) for branch in same for entry in weight_sets(branch)[form.name].files),
                suite.repo,
            )


def equal_sets(branches: Sequence[Branch], form: str) -> list[list[Branch]]:
    """Two or more branches each, whose weight files of this format have the same digests."""
    groups: dict[tuple[str, ...], list[Branch]] = {}
    for branch in branches:
        weights = weight_sets(branch).get(form)
        if weights and weights.files:
            groups.setdefault(weights.identity, []).append(branch)
    return [group for group in groups.values() if len(group) > 1]


def is_declared(suite: Suite, same: Sequence[Branch]) -> bool:
    """Whether they are meant to be equal: the release or the manifest says so.

    Where there is no release file to say otherwise, steps 0 and 1 may be equal: see :data:`FIRST_STEPS`. So may the
    first steps of several series and the one step that they started from.
    """
    steps = frozenset(branch.step for branch in same)
    if len({branch.series for branch in same}) > 1:  # a later stage starts from what an earlier one ended with
        return len([branch for branch in same if branch.step != 0]) <= 1
    return any(steps <= equal for equal in suite.declared) or (suite.release is None and steps == FIRST_STEPS)


def _main_too(suite: Suite, same: Sequence[Branch], form: str) -> str:
    mine = weight_sets(suite.main).get(form) if suite.main else None
    return "; main holds them too" if mine and mine.identity == weight_sets(same[0])[form].identity else ""


def main_not_final(suite: Suite) -> Iterator[Finding]:
    """`main` holds other weights than the last step, or none."""
    main, final = suite.main, suite.final
    if main is None:
        yield Finding("main-not-final", (), "there is no branch main", repo=suite.repo)
        return
    mine, final = weight_sets(main), suite.final
    holds = _same_as(suite, main)
    if (holds in suite.finals and mine) or (final and not weight_sets(final)):
        return  # a final step without weights is told as such
    if final is None and holds is None and mine:
        return  # the last step is missing, which is told as such, or several series end and main may be made of them
    last = final.name if final else "the last step"
    if not mine:
        what = "main holds no weights"
    elif final and not mine.keys() & weight_sets(final).keys():
        what = f"main and {last} have no weight file of the same format"
    else:
        what = f"main holds other weights than {last}" + (f": those of {holds.name}" if holds else "")
    sides = [branch for branch in (main, final) if branch]
    evidence = tuple(Evidence.of(branch, e) for branch in sides for w in weight_sets(branch).values() for e in w.files)
    evidence = evidence or (Evidence.of(main),)
    yield Finding("main-not-final", steps_of([final] if final else []), what, evidence, suite.repo)


def _same_as(suite: Suite, main: Branch) -> Branch | None:
    """The step that holds what `main` holds: a last one before others."""
    mine = {form: weights.identity for form, weights in weight_sets(main).items()}
    for branch in (*suite.finals, *reversed(suite.steps)):
        if any(mine.get(form) == weights.identity for form, weights in weight_sets(branch).items()):
            return branch
    return None
