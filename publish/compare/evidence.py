"""What the figures of a comparison amount to, test by test, before anything is concluded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from publish.compare.chance import (
    Pooled,
    correlation_departure,
    limit,
    mean_departure,
    pool,
    ratio_departure,
    ratio_error,
)
from publish.compare.comparison import Comparison, TensorComparison
from publish.compare.layers import OTHER, RANDOM, TYPES
from publish.compare.moments import Distribution
from publish.compare.pair import DIFFERENT, PairStatistics
from publish.compare.side import Account


@dataclass(frozen=True, slots=True)
class TypeComparison:
    """All tensors of one layer type. ``ratio`` and its ``error`` are NaN where a side is constant.

    ``expected``: the deviation that the init methods of the two sides predict, None where they are not known.
    """

    name: str
    left: Pooled
    right: Pooled
    expected: tuple[float | None, float | None]

    @property
    def ratio(self) -> float:
        return self.left.std / self.right.std if self.left.std and self.right.std else math.nan

    @property
    def predicted(self) -> float | None:
        """What the left side's init method predicts, else the right side's."""
        return next((std for std in self.expected if std is not None), None)

    @property
    def error(self) -> float:
        """The standard error of the ratio where both sides are drawn alike."""
        return self.ratio * ratio_error(self.left, self.right) if math.isfinite(self.ratio) else math.nan

    @property
    def departure(self) -> float:
        return ratio_departure(self.left, self.right)


@dataclass(frozen=True, slots=True)
class TensorTests:
    """One random tensor: how many standard errors its std, its mean and its correlation are from what chance gives."""

    name: str
    kind: str
    std: float
    mean: float
    correlation: float
    ratio: float


@dataclass(frozen=True)
class Evidence:
    """The tests of one comparison. ``drawn`` are the tensors that initialisation draws, ``constant`` the others."""

    comparison: Comparison

    @cached_property
    def drawn(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        return {name: each for name, each in self.comparison.compared.items() if _is_drawn(*each)}

    @cached_property
    def constant(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        return {name: each for name, each in self.comparison.compared.items() if name not in self.drawn}

    @cached_property
    def types(self) -> tuple[TypeComparison, ...]:
        """By layer type, in the order of `TYPES`; absent ones are left out."""
        compared = self.comparison.compared.values()
        sides = (self.comparison.left.account.expected_std, self.comparison.right.account.expected_std)
        made = []
        for kind in TYPES:
            members = [(tensor, found) for tensor, found in compared if tensor.kind == kind]
            if members:
                left, right = (pool(side) for side in zip(*((f.left, f.right) for _, f in members), strict=True))
                names = [tensor.name for tensor, _ in members]
                expected = [_one_std([side.get(name) for name in names]) for side in sides]
                made.append(TypeComparison(kind, left, right, (expected[0], expected[1])))
        return tuple(made)

    @cached_property
    def tests(self) -> tuple[TensorTests, ...]:
        """The random tensors that differ; equal ones have nothing to test."""
        return tuple(
            TensorTests(
                tensor.name,
                tensor.kind,
                ratio_departure(pool([found.left]), pool([found.right])),
                mean_departure(found.left, found.right),
                correlation_departure(found.correlation, min(found.left.finite, found.right.finite)),
                found.left.std / found.right.std if found.right.std else math.nan,
            )
            for tensor, found in self.drawn.values()
            if tensor.outcome == DIFFERENT
        )

    @cached_property
    def limit(self) -> float:
        """The standard errors that none of these tests exceeds by chance (see `chance.limit`)."""
        return limit(3 * len(self.tests) + sum(kind.name in RANDOM for kind in self.types))

    @property
    def odd_types(self) -> tuple[TypeComparison, ...]:
        """Random layer types whose deviations are of two distributions."""
        return tuple(t for t in self.types if t.name in RANDOM and abs(t.departure) > self.limit)

    @property
    def odd_stds(self) -> tuple[TensorTests, ...]:
        """Tensors whose deviations are of two distributions, unless their whole type is off by the same factor."""
        factors = {each.name: each.ratio for each in self.odd_types}
        return tuple(
            test
            for test in self.tests
            if min(abs(test.std), abs(_apart(test, factors.get(test.kind, 1.0)))) > self.limit
        )

    @property
    def odd_means(self) -> tuple[TensorTests, ...]:
        return tuple(test for test in self.tests if abs(test.mean) > self.limit)

    @property
    def correlated(self) -> tuple[TensorTests, ...]:
        """Random tensors that differ and yet have more in common than chance gives."""
        return tuple(test for test in self.tests if abs(test.correlation) > self.limit)

    def at_initialisation(self, side: str) -> bool:
        """Whether most norms and biases of a side (``left``, ``right``) are still constant; else it was trained."""
        sides: list[Distribution] = [getattr(found, side) for _, found in self.constant.values()]
        flat = [each.std == 0 for each in sides if each.finite]
        if flat:
            return sum(flat) > len(flat) / 2
        account: Account = getattr(self.comparison, side).account
        return account.step == 0


def _apart(test: TensorTests, factor: float) -> float:
    """How far the ratio of a tensor is from ``factor``, in standard errors."""
    if not (math.isfinite(test.std) and test.std and math.isfinite(factor)):
        return test.std
    error = math.log(test.ratio) / test.std
    return math.log(test.ratio / factor) / error


def _is_drawn(tensor: TensorComparison, found: PairStatistics) -> bool:
    return tensor.kind in RANDOM or (tensor.kind == OTHER and max(found.left.std, found.right.std) > 0)


def _one_std(predicted: list[float | None]) -> float | None:
    """What a layer type's tensors have in common: their predicted deviation, where it is known of all."""
    known = [std for std in predicted if std is not None]
    return math.sqrt(sum(std * std for std in known) / len(known)) if known and len(known) == len(predicted) else None
