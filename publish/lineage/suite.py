"""A suite as a whole: steps that repeat others, steps out of order, jumps, and what the release declares of these.

Repeats are found by the digests of tensors. A step that is further from a neighbour than its neighbours are from each
other is not between them: it was swapped, or belongs to another run. If all later steps belong to another run, the
distance jumps and no single step is out of order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from publish.compare.model import layer_type
from publish.compare.verdict import ERROR_RATE, significance_limit
from publish.lineage.sketch import StepSketch, TensorSketch, common_tensors
from publish.records.gates import Gate, failed, passed, skipped
from publish.release_file import Release
from publish.text import count, some

REPEATS, LINEAGE = "repeats", "lineage"
REPEAT, REPEAT_ZEROS, SHARED = "repeated-weights", "repeated-up-to-zero-sign", "shared-tensors"
NOT_EQUAL, FLAT = "declared-equal-differs", "constant-tensor"
OUT_OF_ORDER, JUMP = "out-of-order", "jump"
Suite = Mapping[int, StepSketch]
_DECLARE = "compare both with the source; if the run really has them equal, declare it under expect: "
_ORDER = (REPEAT, REPEAT_ZEROS, SHARED, NOT_EQUAL, FLAT)
Values = NDArray[np.float64]
_AROUND = 10  # intervals on either side that show how much a rate varies from one to the next
_NEAR = 4  # the nearest intervals, which a rate may not exceed by far
_FEWEST = 5  # variations, or matrices, that are needed to call one of them unusual
_SPREADS = 8  # typical variations that make a jump
_FIX = (
    "compare it with its source and its neighbours (publish compare); if the run did this, declare it under "
    "expect: - {jump: [STEP], because: ...}"
)


@dataclass(frozen=True, slots=True)
class LineageFinding:
    """One defect of a suite: the steps and tensors that show it (all of these, or the clearest), and what to do."""

    kind: str
    steps: tuple[int, ...]
    tensors: tuple[str, ...]
    detail: str
    fix: str


@dataclass(frozen=True)
class Lineage:
    """What was found in a suite, and its trajectory."""

    findings: tuple[LineageFinding, ...]
    trajectory: Trajectory

    def gates(self) -> tuple[Gate, Gate]:
        """The findings as two gates: equal weights, and the trajectory from step to step."""
        order = [finding for finding in self.findings if finding.kind in (OUT_OF_ORDER, JUMP)]
        equal = [finding for finding in self.findings if finding not in order]
        steps = self.trajectory.steps
        if len(steps) < 2:
            return skipped(REPEATS, "fewer than two steps"), skipped(LINEAGE, "fewer than two steps")
        figures = {
            "steps": len(steps),
            "findings": len(order),
            "largest_distance_between_neighbours": max(self.trajectory.moved),
            "distance_from_first_to_last": self.trajectory.distance(0, -1),
        }
        return (
            _gate(
                REPEATS,
                equal,
                f"none of {len(steps)} steps repeats another, except as declared",
                {"steps": len(steps), "findings": len(equal)},
            ),
            _gate(LINEAGE, order, f"each of {len(steps)} steps is between its neighbours, without a jump", figures),
        )


def _gate(name: str, found: list[LineageFinding], detail: str, figures: Mapping[str, float]) -> Gate:
    if found:
        return failed(name, some((finding.detail for finding in found), 3, "; "), **figures)
    return passed(name, detail, **figures)


def trace(suite: Suite, release: Release) -> Lineage:
    """Every finding of a suite that the release does not declare, from the sketches of its steps."""
    ordered = dict(sorted(suite.items()))
    trajectory = Trajectory(ordered)
    findings = [
        finding
        for finding in order_findings(trajectory)
        if not any(release.expected_jump(step) for step in finding.steps)
    ]
    return Lineage((*repeats(ordered, release), *findings), trajectory)


# ---- repeats


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


# ---- order and jumps


@dataclass(frozen=True)
class Trajectory:
    """A suite's sampled values, step after step; rows are steps in ascending order."""

    suite: Suite

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(self.suite))

    @cached_property
    def matrices(self) -> tuple[str, ...]:
        """The matrices that every step has with the same size and dtype, and finite samples."""
        sketches = [self.suite[step] for step in self.steps]
        return tuple(
            name
            for name, tensor in (sketches[0] if sketches else {}).items()
            if tensor.matrix
            and all(_alike(tensor, sketch.get(name)) for sketch in sketches)
            and all(np.isfinite(sketch[name].sample).all() for sketch in sketches)
        )

    @cached_property
    def values(self) -> Mapping[str, Values]:
        """Matrix -> (step, sample), in units of its median root mean square and of the root of its sample size."""
        scaled = {}
        for name in self.matrices:
            table = np.stack([self.suite[step][name].sample for step in self.steps])
            size = float(np.median(np.sqrt(np.square(table).mean(axis=1))))
            scaled[name] = table / (size * math.sqrt(table.shape[1])) if size else np.zeros_like(table)
        return scaled

    @cached_property
    def whole(self) -> Values:
        """(step, sample) of all matrices, each with the same weight."""
        tables = list(self.values.values())
        return np.concatenate(tables, axis=1) / math.sqrt(len(tables)) if tables else np.zeros((len(self.steps), 0))

    def distance(self, row: int, other: int) -> float:
        """The root mean square, over the matrices, of the relative distances of two rows."""
        return float(np.linalg.norm(self.whole[row] - self.whole[other]))

    def relative(self, kind: str, row: int, other: int) -> float:
        """The distance of two rows over all matrices of a layer type, in units of ``other``'s norm; 0 for no matrix."""
        squared = norm = 0.0
        for name in self.matrices:
            if layer_type(name) == kind:
                left, right = (self.suite[self.steps[at]][name] for at in (row, other))
                weight = left.elements / max(1, left.sample.size)
                squared += weight * float(np.square(left.sample - right.sample).sum())
                norm += weight * float(np.square(right.sample).sum())
        return math.sqrt(squared / norm) if norm else 0.0

    @cached_property
    def moved(self) -> tuple[float, ...]:
        """The distance of every row except the first from the row before."""
        return tuple(float(distance) for distance in np.linalg.norm(np.diff(self.whole, axis=0), axis=1))

    @property
    def error(self) -> float:
        """The magnitude of the sampling error of a distance's logarithm."""
        return 1 / math.sqrt(max(1, self.whole.shape[1]))

    def fitting_gap(self, row: int, left: Sequence[int]) -> tuple[int, int | None] | None:
        """The rows of ``left`` between which ``row`` would be in order; the second is None for after the last.

        None if its weights fit nowhere.
        """
        far = {at: self.distance(at, row) for at in left}
        gaps: list[tuple[float, tuple[int, int | None]]] = [
            (_quotient(max(far[one], far[other]), self.distance(one, other)), (one, other))
            for one, other in pairwise(left)
        ]
        if len(left) > 1:
            one, last = left[-2:]
            gaps.append((_quotient(max(self.distance(one, last), far[last]), far[one]), (last, None)))
        best, gap = min(gaps, default=(math.inf, (0, None)))
        return gap if best < 1 - 2 * self.error else None


def _alike(tensor: TensorSketch, other: TensorSketch | None) -> bool:
    return other is not None and (tensor.elements, tensor.dtype) == (other.elements, other.dtype)


def _quotient(near: float, far: float) -> float:
    return near / far if far else math.inf


def log_detours(values: Values) -> Values:
    """For every step except the ends: log(distance to the further neighbour / distance of the neighbours).

    ``values`` is (step, sample), the result (step - 2). At most 0 for a step between its neighbours; -inf if nothing
    moved.
    """
    moved, across = np.square(np.diff(values, axis=0)).sum(axis=1), np.square(values[2:] - values[:-2]).sum(axis=1)
    near = np.maximum(moved[:-1], moved[1:])
    return np.array([math.log(_quotient(n, f)) / 2 if n else -math.inf for n, f in zip(near, across, strict=True)])


def detour_z(values: Values) -> Values:
    """`log_detours` in standard errors of the sample."""
    moved, across = np.square(np.diff(values, axis=0)), np.square(values[2:] - values[:-2])
    return np.maximum(_log_ratio_z(moved[:-1], across), _log_ratio_z(moved[1:], across))


def _log_ratio_z(near: Values, far: Values) -> Values:
    """Rows of squared differences: log(sum near / sum far) in standard errors; -inf if nothing moved."""
    one, other = near.sum(axis=1), far.sum(axis=1)
    result = np.full(one.size, -math.inf)
    for row in np.flatnonzero(one > 0):
        if other[row] == 0:
            result[row] = math.inf
            continue
        error = math.sqrt(float(np.square(near[row] / one[row] - far[row] / other[row]).sum()))
        result[row] = math.log(one[row] / other[row]) / error if error else 0.0
    return result


def order_findings(trajectory: Trajectory) -> Iterator[LineageFinding]:
    """Jumps first; then, between jumps, steps and single matrices that are out of order."""
    rows = range(len(trajectory.steps))
    jumps = list(_jumps(trajectory))
    for row, times in jumps:
        one, other = trajectory.steps[row - 1 : row + 1]
        detail = (
            f"from step {one:,} to step {other:,} the weights moved by {trajectory.moved[row - 1]:.3g}, "
            f"{times:,.1f} times as fast as in the steps around"
        )
        yield LineageFinding(JUMP, (other,), (), detail, _FIX)
    removed: list[tuple[int, int, int]] = []
    parts = [list(rows[start:end]) for start, end in pairwise([0, *(row for row, _ in jumps), len(rows)])]
    for part in parts:
        removed += _remove_out_of_order(trajectory, part)
    left = [row for part in parts for row in part]
    for row, before, after in sorted(removed):
        yield _out_of_order(trajectory, row, before, after, left)
    for part in parts:
        yield from _matrices_out_of_order(trajectory, part)


def _remove_out_of_order(trajectory: Trajectory, left: list[int]) -> Iterator[tuple[int, int, int]]:
    """(row, before, after) of rows that are not between these two; the worst is removed from ``left`` first."""
    limit = significance_limit(len(trajectory.steps))
    while len(left) > 2:
        z = detour_z(trajectory.whole[left])
        at = int(np.argmax(z)) + 1
        if not z[at - 1] > limit:
            return
        before, row, after = left[at - 1 : at + 2]
        del left[at]
        yield row, before, after


def _out_of_order(trajectory: Trajectory, row: int, before: int, after: int, left: Sequence[int]) -> LineageFinding:
    """A step out of order, and where in the suite its weights belong, if anywhere."""
    step, one, other = (trajectory.steps[at] for at in (row, before, after))
    rows, belongs = [row], ""
    if (gap := trajectory.fitting_gap(row, left)) is not None:
        low, high = gap
        end = "" if high is None else f" and before step {trajectory.steps[high]:,}"
        belongs = f"; it would fit after step {trajectory.steps[low]:,}{end}"
        rows += [after] if low == after else [before] if high == before else []  # the two were swapped
    steps = tuple(sorted(trajectory.steps[at] for at in rows))
    near, far = trajectory.distance(before, row), trajectory.distance(row, after)
    names = [name for name, values in trajectory.values.items() if log_detours(values[[before, row, after]])[0] > 0]
    detail = (
        f"step {step:,} is not between steps {one:,} and {other:,}: its distances from them are {near:.3g} and "
        f"{far:.3g}, and theirs from each other is {trajectory.distance(before, after):.3g}{belongs}; "
        f"shown by {some(names)}"
    )
    return LineageFinding(OUT_OF_ORDER, steps, tuple(names), detail, _FIX)


def _matrices_out_of_order(trajectory: Trajectory, left: Sequence[int]) -> Iterator[LineageFinding]:
    """Single matrices out of order in steps whose other matrices are in order."""
    if len(left) < 3 or len(trajectory.matrices) < _FEWEST:
        return
    tables = [values[list(left)] for values in trajectory.values.values()]
    z, logs = np.stack([detour_z(table) for table in tables]), np.stack([log_detours(table) for table in tables])
    limit = significance_limit(z.size)
    for at in range(len(left) - 2):
        moved = np.isfinite(logs[:, at]) | (logs[:, at] > 0)
        if moved.sum() < _FEWEST:
            continue
        median = np.median(logs[moved, at])
        spread = np.median(np.abs(logs[moved, at] - median))
        found = np.flatnonzero((z[:, at] > limit) & (logs[:, at] - median > _SPREADS * spread))
        if found.size:
            one, step, other = (trajectory.steps[row] for row in left[at : at + 3])
            names = tuple(trajectory.matrices[index] for index in found)
            detail = (
                f"in step {step:,}, {some(names)} of {len(tables)} matrices are not between steps {one:,} and {other:,}"
            )
            yield LineageFinding(OUT_OF_ORDER, (step,), names, detail, _FIX)


def _jumps(trajectory: Trajectory) -> Iterator[tuple[int, float]]:
    """Rows that were reached far faster than those around them, and how many times as fast."""
    steps = trajectory.steps
    moved = enumerate(trajectory.moved, 1)
    rates = [(row, math.log(far / (steps[row] - steps[row - 1]))) for row, far in moved if far > 0]
    for row, rate in rates:
        others = [(at, value) for at, value in rates if at != row]
        nearest = sorted(others, key=lambda other: abs(other[0] - row))[:_NEAR]
        variations = np.abs(np.diff([value for at, value in others if abs(at - row) <= _AROUND]))
        if len(variations) < _FEWEST:
            continue
        gain = rate - max(value for _, value in nearest)
        if gain > _SPREADS * max(float(np.median(variations)), trajectory.error):
            yield row, math.exp(gain)
