"""The course of a run through its steps: how far any two are apart, and which are not between their neighbours.

Training drifts: of three steps in a row the outer two are furthest apart. Distances are of all matrices alike, each in
units of its own size, estimated on the sampled places of `sketch`; the sample tells the error of every quotient of
distances. On two real runs of 154 steps no inner distance exceeds 0.98 of the outer one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from publish.compare.layers import layer_type
from publish.compare.repeats import Suite

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
