"""Steps that a run did not pass through on its way: out of order, or after a jump.

A step that is further from a neighbour than the neighbours are from each other is not between them: it was swapped, or
is another run's. Where everything that follows is another run's, no single step is out of line and the distance jumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from publish.compare.chance import limit
from publish.compare.course import Course, between, beyond
from publish.compare.finding import JUMP, OUT_OF_ORDER, LineageFinding
from publish.verify.gate import some

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
