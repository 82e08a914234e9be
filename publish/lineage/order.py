"""Steps that a run did not pass through on its way: out of order, or after a jump.

A step that is further from a neighbour than the neighbours are from each other is not between them: it was swapped, or
is another run's. Where everything that follows is another run's, no single step is out of line and the distance jumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from publish.compare.layers import layer_type
from publish.compare.verdict import limit
from publish.lineage.repeats import JUMP, OUT_OF_ORDER, LineageFinding, Suite
from publish.text import some

# The course of a run through its steps: how far any two are apart, and which are not between their neighbours.


Values = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """A suite's sampled values, step after step; rows are steps in ascending order."""

    suite: Suite

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(self.suite))

    @cached_property
    def matrices(self) -> tuple[str, ...]:
        """The matrices that every step holds alike, those left out whose sample is not finite everywhere."""
        sketches = [self.suite[step] for step in self.steps]
        return tuple(
            name
            for name, each in (sketches[0] if sketches else {}).items()
            if each.matrix
            and all(name in o and (o[name].elements, o[name].dtype) == (each.elements, each.dtype) for o in sketches)
            and all(np.isfinite(o[name].sample).all() for o in sketches)
        )

    @cached_property
    def values(self) -> Mapping[str, Values]:
        """Name -> (step, place), in units of the matrix's typical root mean square and the root of its places."""
        scaled = {}
        for name in self.matrices:
            table = np.stack([self.suite[step][name].sample for step in self.steps])
            size = float(np.median(np.sqrt(np.square(table).mean(axis=1))))
            scaled[name] = table / (size * math.sqrt(table.shape[1])) if size else np.zeros_like(table)
        return scaled

    @cached_property
    def whole(self) -> Values:
        """(step, place) of all matrices, each with the same weight."""
        tables = list(self.values.values())
        return np.concatenate(tables, axis=1) / math.sqrt(len(tables)) if tables else np.zeros((len(self.steps), 0))

    def distance(self, row: int, other: int) -> float:
        """Of two rows: the root mean square, over the matrices, of each one's relative distance."""
        return float(np.linalg.norm(self.whole[row] - self.whole[other]))

    def relative(self, kind: str, row: int, other: int) -> float:
        """The distance of two rows over all matrices of a layer type, in units of ``other``'s norm; 0 for no matrix."""
        apart = norm = 0.0
        for name in self.matrices:
            if layer_type(name) == kind:
                left, right = (self.suite[self.steps[at]][name] for at in (row, other))
                weight = left.elements / max(1, left.sample.size)
                apart += weight * float(np.square(left.sample - right.sample).sum())
                norm += weight * float(np.square(right.sample).sum())
        return math.sqrt(apart / norm) if norm else 0.0

    @cached_property
    def moved(self) -> tuple[float, ...]:
        """The distance of every row but the first from the one before."""
        return tuple(float(each) for each in np.linalg.norm(np.diff(self.whole, axis=0), axis=1))

    @property
    def error(self) -> float:
        """The order of the sampling error of a distance's logarithm."""
        return 1 / math.sqrt(max(1, self.whole.shape[1]))

    def fit(self, row: int, left: Sequence[int]) -> tuple[int, int | None] | None:
        """The rows of ``left`` between which ``row`` would be in order, the second None for after the last.

        None where its weights fit nowhere.
        """
        far = {at: self.distance(at, row) for at in left}
        gaps: list[tuple[float, tuple[int, int | None]]] = [
            (_quotient(max(far[one], far[other]), self.distance(one, other)), (one, other))
            for one, other in pairwise(left)
        ]
        if len(left) > 1:
            one, last = left[-2:]
            gaps.append((_quotient(max(self.distance(one, last), far[last]), far[one]), (last, None)))
        best, place = min(gaps, default=(math.inf, (0, None)))
        return place if best < 1 - 2 * self.error else None


def _quotient(near: float, far: float) -> float:
    return near / far if far else math.inf


def between(values: Values) -> Values:
    """For every step but the ends: log of (distance to the further neighbour / the neighbours' own), in its errors.

    ``values`` is (step, place); the result is (step - 2). At most 0 where the step is between its neighbours.
    """
    moved, across = np.square(np.diff(values, axis=0)), np.square(values[2:] - values[:-2])
    return np.maximum(_excess(moved[:-1], across), _excess(moved[1:], across))


def beyond(values: Values) -> Values:
    """As :func:`between`, the logarithm itself; -inf where nothing moved."""
    moved, across = np.square(np.diff(values, axis=0)).sum(axis=1), np.square(values[2:] - values[:-2]).sum(axis=1)
    near = np.maximum(moved[:-1], moved[1:])
    return np.array([math.log(_quotient(n, f)) / 2 if n else -math.inf for n, f in zip(near, across, strict=True)])


def _excess(near: Values, far: Values) -> Values:
    """Rows of squared differences: log(sum near / sum far) in standard errors; -inf where nothing moved."""
    one, other = near.sum(axis=1), far.sum(axis=1)
    result = np.full(one.size, -math.inf)
    for row in np.flatnonzero(one > 0):
        if other[row] == 0:
            result[row] = math.inf
            continue
        error = math.sqrt(float(np.square(near[row] / one[row] - far[row] / other[row]).sum()))
        result[row] = math.log(one[row] / other[row]) / error if error else 0.0
    return result


_AROUND = 10  # intervals on either side that tell how much a rate varies from one to the next
_NEAR = 4  # intervals, the nearest, that a rate may not leave far behind
_FEWEST = 5  # variations, or matrices, below which nothing is called unusual
_SPREADS = 8  # how many typical variations are a jump
_FIX = (
    "compare it with its source and its neighbours (publish compare); if the run did this, declare it under "
    "expect: - {jump: [STEP], because: ...}"
)


def course_findings(course: Course) -> Iterator[LineageFinding]:
    """Jumps first; between them, steps and single matrices that are out of line."""
    rows = range(len(course.steps))
    found = list(_jumps(course))
    for row, times in found:
        one, other = course.steps[row - 1 : row + 1]
        detail = (
            f"from step {one:,} to step {other:,} the weights moved {course.moved[row - 1]:.3g}, "
            f"{times:,.1f} times as fast as in the steps around"
        )
        yield LineageFinding(JUMP, (other,), (), detail, _FIX)
    odd: list[tuple[int, int, int]] = []
    parts = [list(rows[start:end]) for start, end in pairwise([0, *(row for row, _ in found), len(rows)])]
    for part in parts:
        odd += _take_out(course, part)
    left = [row for part in parts for row in part]
    for row, before, after in sorted(odd):
        yield _misplaced(course, row, before, after, left)
    for part in parts:
        yield from _odd_matrices(course, part)


def _take_out(course: Course, left: list[int]) -> Iterator[tuple[int, int, int]]:
    """Rows that are not between those before and after them: the worst leaves ``left``, then the rest is looked at."""
    far = limit(len(course.steps))
    while len(left) > 2:
        excess = between(course.whole[left])
        at = int(np.argmax(excess)) + 1
        if not excess[at - 1] > far:
            return
        before, row, after = left[at - 1 : at + 2]
        del left[at]
        yield row, before, after


def _misplaced(course: Course, row: int, before: int, after: int, left: Sequence[int]) -> LineageFinding:
    """A step out of place, and where in the suite its weights belong, if anywhere."""
    step, one, other = (course.steps[at] for at in (row, before, after))
    named, belongs = [row], ""
    if (place := course.fit(row, left)) is not None:
        low, high = place
        end = "" if high is None else f" and before step {course.steps[high]:,}"
        belongs = f"; it would fit after step {course.steps[low]:,}{end}"
        named += [after] if low == after else [before] if high == before else []  # the two were exchanged
    steps = tuple(sorted(course.steps[at] for at in named))
    detail = (
        f"step {step:,} is not between steps {one:,} and {other:,}: {course.distance(before, row):.3g} and "
        f"{course.distance(row, after):.3g} from them, which are {course.distance(before, after):.3g} apart{belongs}"
    )
    tensors = [name for name, values in course.values.items() if beyond(values[[before, row, after]])[0] > 0]
    return LineageFinding(OUT_OF_ORDER, steps, tuple(tensors), f"{detail}; shown by {some(tensors)}", _FIX)


def _odd_matrices(course: Course, left: Sequence[int]) -> Iterator[LineageFinding]:
    """Single matrices out of line where the other matrices of the step are not."""
    if len(left) < 3 or len(course.matrices) < _FEWEST:
        return
    tables = [values[list(left)] for values in course.values.values()]
    errors, logs = np.stack([between(t) for t in tables]), np.stack([beyond(t) for t in tables])
    far = limit(errors.size)
    for at in range(len(left) - 2):
        moved = np.isfinite(logs[:, at]) | (logs[:, at] > 0)
        if moved.sum() < _FEWEST:
            continue
        middle = np.median(logs[moved, at])
        spread = np.median(np.abs(logs[moved, at] - middle))
        odd = np.flatnonzero((errors[:, at] > far) & (logs[:, at] - middle > _SPREADS * spread))
        if odd.size:
            one, step, other = (course.steps[row] for row in left[at : at + 3])
            names = tuple(course.matrices[index] for index in odd)
            detail = f"in step {step:,}, {some(names)} of {len(tables)} matrices are not between steps {one:,} and "
            yield LineageFinding(OUT_OF_ORDER, (step,), names, f"{detail}{other:,}", _FIX)


def _jumps(course: Course) -> Iterator[tuple[int, float]]:
    """Rows that were reached far faster than those around them, and how many times as fast."""
    steps = course.steps
    rates = [(row, math.log(far / (steps[row] - steps[row - 1]))) for row, far in enumerate(course.moved, 1) if far > 0]
    for row, rate in rates:
        others = [each for each in rates if each[0] != row]
        nearest = sorted(others, key=lambda each: abs(each[0] - row))[:_NEAR]
        varies = np.abs(np.diff([value for at, value in others if abs(at - row) <= _AROUND]))
        if len(varies) < _FEWEST:
            continue
        gain = rate - max(value for _, value in nearest)
        if gain > _SPREADS * max(float(np.median(varies)), course.error):
            yield row, math.exp(gain)
