"""Steps that hold the same weights, or some of them, by the digests of their tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from publish.compare.chance import ERROR_RATE
from publish.compare.finding import FLAT, NOT_EQUAL, REPEAT, REPEAT_ZEROS, SHARED, LineageFinding
from publish.compare.sketch import StepSketch, common
from publish.release import Release
from publish.verify.gate import some

Suite = Mapping[int, StepSketch]
_DECLARE = "one of them is another checkpoint's; if they are equal, declare it under expect: "


def repeats(suite: Suite, release: Release) -> Iterator[LineageFinding]:
    """Undeclared equalities, declared ones that do not hold, and matrices that hold one value."""
    yield from _whole(suite, release)
    yield from _shared(suite, release)
    yield from _declared(suite, release)
    yield from _flat(suite)


def _flat(suite: Suite) -> Iterator[LineageFinding]:
    """Tensors of one value: a matrix never is one, and a norm or bias not again once it was trained."""
    trained: set[str] = set()
    for step, sketch in suite.items():
        flat = tuple(name for name, each in sketch.items() if each.std == 0 and (each.matrix or name in trained))
        if flat:
            detail = f"step {step:,}: every value is the same in {some(flat)}"
            yield LineageFinding(FLAT, (step,), flat, detail, "the weights are damaged; fetch the checkpoint again")
        trained |= {name for name, each in sketch.items() if each.std > 0}


def _digests(sketch: StepSketch, *, unsigned: bool = False) -> tuple[tuple[str, str], ...]:
    return tuple((name, each.unsigned if unsigned else each.digest) for name, each in sorted(sketch.items()))


def _whole(suite: Suite, release: Release) -> Iterator[LineageFinding]:
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for step, sketch in suite.items():
        groups.setdefault(_digests(sketch, unsigned=True), []).append(step)
    for steps in groups.values():
        for one, other in combinations(steps, 2):
            if release.expected_equal(one, other):
                continue
            left, right = suite[one], suite[other]
            signs = tuple(name for name, each in left.items() if each.digest != right[name].digest)
            kind, but = (REPEAT_ZEROS, f" but for the sign of zeros in {some(signs)}") if signs else (REPEAT, "")
            yield LineageFinding(
                kind,
                (one, other),
                signs or tuple(left),
                f"step {other:,} holds the weights of step {one:,}{but}",
                f"{_DECLARE}- {{equal: [{one}, {other}], because: ...}}",
            )


def _shared(suite: Suite, release: Release) -> Iterator[LineageFinding]:
    """Matrices that two steps share though so much else changed between the two that chance cannot explain it."""
    for (one, other), names in _candidates(suite).items():
        left, right = suite[one], suite[other]
        if release.expected_equal(one, other) or _digests(left, unsigned=True) == _digests(right, unsigned=True):
            continue
        changed = _changed(left, right, names)
        odd = [name for name in names if left[name].elements * math.log1p(-changed) < math.log(ERROR_RATE)]
        if odd:
            yield LineageFinding(
                SHARED,
                (one, other),
                tuple(odd),
                f"steps {one:,} and {other:,} share {len(odd)} matrices bit for bit while {changed:.0%} of the other "
                f"matrices' values changed: {some(odd)}",
                "a file of one of them is the other's: compare both with the source, and fetch it again",
            )


def _candidates(suite: Suite) -> dict[tuple[int, int], list[str]]:
    """Pairs of steps -> the matrices whose digests are equal."""
    seen: dict[tuple[str, str], list[int]] = {}
    for step, sketch in suite.items():
        for name, each in sketch.items():
            if each.matrix and each.std > 0:
                seen.setdefault((name, each.digest), []).append(step)
    pairs: dict[tuple[int, int], list[str]] = {}
    for (name, _), steps in seen.items():
        for pair in combinations(steps, 2):
            pairs.setdefault(pair, []).append(name)
    return pairs


def _changed(left: StepSketch, right: StepSketch, but: list[str]) -> float:
    """The part of the sampled values that changed, in the matrices that are not equal; just below 1 at most."""
    pairs = [(one, other) for one, other in common(left, right) if one.matrix and one.name not in but]
    total = sum(one.sample.size for one, _ in pairs)
    changed = sum(int(np.count_nonzero(one.sample != other.sample)) for one, other in pairs)
    return min(changed / total, 1 - 1e-9) if total else 0.0


def _declared(suite: Suite, release: Release) -> Iterator[LineageFinding]:
    for each in release.expect:
        for one, other in combinations([step for step in each.steps if step in suite], 2):
            left, right = suite[one], suite[other]
            odd = tuple(name for name in left if name not in right or left[name].digest != right[name].digest)
            if odd:
                zeros = all(name in right and left[name].unsigned == right[name].unsigned for name in odd)
                yield LineageFinding(
                    NOT_EQUAL,
                    (one, other),
                    odd,
                    f"steps {one:,} and {other:,} are declared equal and differ"
                    f"{' in the sign of zeros' if zeros else ''} in {len(odd)} tensors: {some(odd)}",
                    f"take the line out of expect ({each.because}), or find out which checkpoint is wrong",
                )
