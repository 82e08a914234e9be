"""Steps of a run that hold the same weights, or share some of them, by the digests of their tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from publish.compare.verdict import ERROR_RATE
from publish.lineage.sketch import StepSketch, common_tensors
from publish.release_file import Release
from publish.text import count, some

REPEAT, REPEAT_ZEROS, SHARED = "repeated-weights", "repeated-up-to-zero-sign", "shared-tensors"
NOT_EQUAL, FLAT = "declared-equal-differs", "constant-tensor"
OUT_OF_ORDER, JUMP = "out-of-order", "jump"


@dataclass(frozen=True, slots=True)
class LineageFinding:
    """One defect of a suite: the steps and tensors that show it (all of these, or the clearest), and what to do."""

    kind: str
    steps: tuple[int, ...]
    tensors: tuple[str, ...]
    detail: str
    fix: str


Suite = Mapping[int, StepSketch]
_DECLARE = "compare both with the source; if the run really has them equal, declare it under expect: "
_ORDER = (REPEAT, REPEAT_ZEROS, SHARED, NOT_EQUAL, FLAT)


def repeats(suite: Suite, release: Release) -> list[LineageFinding]:
    """Undeclared equalities, declared ones that do not hold, and tensors of a single value, by kind and step."""
    seen, found = Repeats(release), list[LineageFinding]()
    for step, sketch in sorted(suite.items()):
        found += seen.findings(step, sketch)
        seen.add(step, sketch)
    return sorted(found, key=lambda finding: (_ORDER.index(finding.kind), finding.steps))


class Repeats:
    """Looks up each step of a suite, in any order, by its digests among the steps added before."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._suite: dict[int, StepSketch] = {}
        self._whole: dict[tuple[tuple[str, str], ...], list[int]] = {}  # all unsigned digests -> steps
        self._matrices: dict[tuple[str, str], list[int]] = {}  # name and digest -> steps
        self._trained: dict[str, int] = {}  # tensors of more than one value -> the first step in which they are so

    def add(self, step: int, sketch: StepSketch) -> None:
        """Compare the following steps with ``step`` too."""
        self._suite[step] = sketch
        self._whole.setdefault(_unsigned_digests(sketch), []).append(step)
        for name, tensor in sketch.items():
            if tensor.std > 0:
                self._trained[name] = min(step, self._trained.get(name, step))
                if tensor.matrix:
                    self._matrices.setdefault((name, tensor.digest), []).append(step)

    def findings(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        """Equalities of ``step`` with added steps that should not be, or should be and are not; constant tensors."""
        equal = self._whole.get(_unsigned_digests(sketch), [])
        for other in equal:
            if not self._release.expected_equal(step, other):
                yield self._repeated(step, sketch, other)
        yield from self._shared(step, sketch, equal)
        yield from self._declared(step, sketch)
        yield from self._constant(step, sketch)

    def _repeated(self, step: int, sketch: StepSketch, other: int) -> LineageFinding:
        known = self._suite[other]
        signs = tuple(name for name, tensor in sketch.items() if tensor.digest != known[name].digest)
        kind, except_signs = (REPEAT_ZEROS, f" except the sign of zeros in {some(signs)}") if signs else (REPEAT, "")
        first, second = sorted((step, other))
        return LineageFinding(
            kind,
            (first, second),
            signs or tuple(sketch),
            f"step {second:,} holds the weights of step {first:,}{except_signs}",
            f"{_DECLARE}- {{equal: [{first}, {second}], because: ...}}",
        )

    def _shared(self, step: int, sketch: StepSketch, equal: Collection[int]) -> Iterator[LineageFinding]:
        """Matrices that two steps share although so much else changed between them that chance cannot explain it."""
        common: dict[int, list[str]] = {}
        for name, tensor in sketch.items():
            for other in self._matrices.get((name, tensor.digest), ()):
                common.setdefault(other, []).append(name)
        for other, names in common.items():
            if other in equal or self._release.expected_equal(step, other):
                continue
            changed = _changed_fraction(self._suite[other], sketch, names)
            shared = [name for name in names if sketch[name].elements * math.log1p(-changed) < math.log(ERROR_RATE)]
            if shared:
                first, second = sorted((step, other))
                yield LineageFinding(
                    SHARED,
                    (first, second),
                    tuple(shared),
                    f"steps {first:,} and {second:,} share {count(len(shared), 'matrix', 'matrices')} bit for bit, "
                    f"while {changed:.0%} of the values of the other matrices changed: {some(shared)}",
                    "one step has a file of the other: compare both with the source, and fetch it again",
                )

    def _declared(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        for expected in self._release.expect:
            if step not in expected.steps:
                continue
            for other in sorted(self._suite.keys() & set(expected.steps) - {step}):
                first, second = sorted((step, other))
                left, right = (sketch if one == step else self._suite[one] for one in (first, second))
                names = tuple(name for name in left if name not in right or left[name].digest != right[name].digest)
                if names:
                    zeros = all(name in right and left[name].unsigned == right[name].unsigned for name in names)
                    yield LineageFinding(
                        NOT_EQUAL,
                        (first, second),
                        names,
                        f"steps {first:,} and {second:,} are declared equal and differ"
                        f"{' in the sign of zeros' if zeros else ''} in {count(len(names), 'tensor')}: {some(names)}",
                        f"remove the line from expect ({expected.because}), or find out which checkpoint is wrong",
                    )

    def _constant(self, step: int, sketch: StepSketch) -> Iterator[LineageFinding]:
        """Tensors of a single value: a matrix never is one, and a norm or bias is none after it was trained."""
        names = tuple(
            name
            for name, tensor in sketch.items()
            if tensor.std == 0 and (tensor.matrix or self._trained.get(name, step) < step)
        )
        if names:
            detail = f"step {step:,}: all values are the same in {some(names)}"
            yield LineageFinding(FLAT, (step,), names, detail, "the weights are damaged; fetch the checkpoint again")


def _unsigned_digests(sketch: StepSketch) -> tuple[tuple[str, str], ...]:
    return tuple((name, tensor.unsigned) for name, tensor in sorted(sketch.items()))


def _changed_fraction(left: StepSketch, right: StepSketch, equal: list[str]) -> float:
    """The fraction of the sampled values that changed in the matrices that are not ``equal``; just below 1 at most."""
    pairs = [(one, other) for one, other in common_tensors(left, right) if one.matrix and one.name not in equal]
    total = sum(one.sample.size for one, _ in pairs)
    changed = sum(int(np.count_nonzero(one.sample != other.sample)) for one, other in pairs)
    return min(changed / total, 1 - 1e-9) if total else 0.0
