"""Steps that hold the same weights, or some of them, by the digests of their tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from publish.compare.verdict import ERROR_RATE
from publish.lineage.sketch import StepSketch, common
from publish.release_file import Release
from publish.text import some

# What is wrong with a suite: which steps, which tensors, and why.


REPEAT, REPEAT_ZEROS, SHARED = "repeated-weights", "repeated-up-to-zero-sign", "shared-tensors"
NOT_EQUAL, FLAT = "declared-equal-differs", "constant-tensor"
OUT_OF_ORDER, JUMP = "out-of-order", "jump"


@dataclass(frozen=True, slots=True)
class LineageFinding:
    """One defect. ``steps`` are those to look at, ``tensors`` those it shows in (all of them, or the clearest)."""

    kind: str
    steps: tuple[int, ...]
    tensors: tuple[str, ...]
    detail: str
    fix: str


Suite = Mapping[int, StepSketch]
_DECLARE = "one of them is another checkpoint's; if they are equal, declare it under expect: "
_ORDER = (REPEAT, REPEAT_ZEROS, SHARED, NOT_EQUAL, FLAT)


def repeats(suite: Suite, release: Release) -> list[LineageFinding]:
    """Undeclared equalities, declared ones that do not hold, and tensors that hold one value, by kind and step."""
    seen, found = Repeats(release), list[LineageFinding]()
    for step, sketch in sorted(suite.items()):
        found += seen.findings(step, sketch)
        seen.add(step, sketch)
    return sorted(found, key=lambda each: (_ORDER.index(each.kind), each.steps))


class Repeats:
    """The steps of a suite as they come, in any order. A step is looked up by its digests among those before it."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._suite: dict[int, StepSketch] = {}
        self._whole: dict[tuple[tuple[str, str], ...], list[int]] = {}  # all tensors, signs of zeros aside -> steps
        self._matrices: dict[tuple[str, str], list[int]] = {}  # name and digest -> steps
        self._trained: dict[str, int] = {}  # tensors of more than one value -> the first step that has them so

    def add(self, step: int, sketch: StepSketch) -> None:
        """Look for others in ``step`` from now on."""
        self._suite[step] = sketch
        self._whole.setdefault(_unsigned(sketch), []).append(step)
        for name, each in sketch.items():
            if each.std > 0:
                self._trained[name] = min(step, self._trained.get(name, step))
                if each.matrix:
                    self._matrices.setdefault((name, each.digest), []).append(step)

    def findings(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        """What ``step`` has in common with steps that were added, and should not, or should have and has not."""
        equal = self._whole.get(_unsigned(sketch), [])
        for other in equal:
            if not self._release.expected_equal(step, other):
                yield self._repeated(step, sketch, other)
        yield from self._shared(step, sketch, equal)
        yield from self._declared(step, sketch)
        yield from self._flat(step, sketch)

    def _repeated(self, step: int, sketch: StepSketch, other: int) -> LineageFinding:
        known = self._suite[other]
        signs = tuple(name for name, each in sketch.items() if each.digest != known[name].digest)
        kind, but = (REPEAT_ZEROS, f" but for the sign of zeros in {some(signs)}") if signs else (REPEAT, "")
        first, second = sorted((step, other))
        return LineageFinding(
            kind,
            (first, second),
            signs or tuple(sketch),
            f"step {second:,} holds the weights of step {first:,}{but}",
            f"{_DECLARE}- {{equal: [{first}, {second}], because: ...}}",
        )

    def _shared(self, step: int, sketch: StepSketch, equal: Collection[int]) -> Iterator[LineageFinding]:
        """Matrices that two steps share though so much else changed between the two that chance cannot explain it."""
        common_to: dict[int, list[str]] = {}
        for name, each in sketch.items():
            for other in self._matrices.get((name, each.digest), ()):
                common_to.setdefault(other, []).append(name)
        for other, names in common_to.items():
            if other in equal or self._release.expected_equal(step, other):
                continue
            changed = _changed(self._suite[other], sketch, names)
            odd = [name for name in names if sketch[name].elements * math.log1p(-changed) < math.log(ERROR_RATE)]
            if odd:
                first, second = sorted((step, other))
                yield LineageFinding(
                    SHARED,
                    (first, second),
                    tuple(odd),
                    f"steps {first:,} and {second:,} share {len(odd)} matrices bit for bit while {changed:.0%} of the "
                    f"other matrices' values changed: {some(odd)}",
                    "a file of one of them is the other's: compare both with the source, and fetch it again",
                )

    def _declared(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        for each in self._release.expect:
            if step not in each.steps:
                continue
            for other in sorted(self._suite.keys() & set(each.steps) - {step}):
                first, second = sorted((step, other))
                left, right = (sketch if one == step else self._suite[one] for one in (first, second))
                odd = tuple(name for name in left if name not in right or left[name].digest != right[name].digest)
                if odd:
                    zeros = all(name in right and left[name].unsigned == right[name].unsigned for name in odd)
                    yield LineageFinding(
                        NOT_EQUAL,
                        (first, second),
                        odd,
                        f"steps {first:,} and {second:,} are declared equal and differ"
                        f"{' in the sign of zeros' if zeros else ''} in {len(odd)} tensors: {some(odd)}",
                        f"take the line out of expect ({each.because}), or find out which checkpoint is wrong",
                    )

    def _flat(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        """Tensors of one value: a matrix never is one, and a norm or bias not again once it was trained."""
        flat = tuple(
            name
            for name, each in sketch.items()
            if each.std == 0 and (each.matrix or self._trained.get(name, step) < step)
        )
        if flat:
            detail = f"step {step:,}: every value is the same in {some(flat)}"
            yield LineageFinding(FLAT, (step,), flat, detail, "the weights are damaged; fetch the checkpoint again")


def _unsigned(sketch: StepSketch) -> tuple[tuple[str, str], ...]:
    return tuple((name, each.unsigned) for name, each in sorted(sketch.items()))


def _changed(left: StepSketch, right: StepSketch, but: list[str]) -> float:
    """The part of the sampled values that changed, in the matrices that are not equal; just below 1 at most."""
    pairs = [(one, other) for one, other in common(left, right) if one.matrix and one.name not in but]
    total = sum(one.sample.size for one, _ in pairs)
    changed = sum(int(np.count_nonzero(one.sample != other.sample)) for one, other in pairs)
    return min(changed / total, 1 - 1e-9) if total else 0.0
