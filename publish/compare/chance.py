"""What chance alone does to a standard deviation, a mean and a correlation of a given number of elements.

All tests are two-sided and share one error rate, `ERROR_RATE` for a whole comparison (Bonferroni). A logarithm of a
standard deviation has variance (k - 1) / 4n, k the kurtosis: 3 for the normal numbers that most init methods draw,
and the tensors' own where that is larger (Kenney and Keeping, Mathematics of Statistics, 2, chapter 7). Two independent
tensors have a Fisher-transformed correlation of variance 1 / (n - 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

from publish.compare.moments import Distribution

ERROR_RATE = 1e-3
NORMAL_KURTOSIS = 3.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """Several tensors as one sample: ``std`` is that within the tensors, NaN where there is no finite element."""

    elements: int
    std: float
    kurtosis: float


def pool(distributions: Iterable[Distribution]) -> Pooled:
    """One sample of several tensors, whose means may differ."""
    parts = [each for each in distributions if each.finite]
    elements = sum(part.finite for part in parts)
    if not elements:
        return Pooled(0, math.nan, math.nan)
    std = math.sqrt(sum(part.finite * part.std**2 for part in parts) / elements)
    weight = sum(part.finite for part in parts if part.std > 0)
    kurtosis = sum(part.finite * part.kurtosis for part in parts if part.std > 0) / weight if weight else math.nan
    return Pooled(elements, std, kurtosis)


def limit(tests: int) -> float:
    """How many standard errors chance exceeds in none of ``tests``, but for `ERROR_RATE` of the comparisons."""
    return NormalDist().inv_cdf(1 - ERROR_RATE / (2 * max(1, tests)))


def ratio_error(left: Pooled, right: Pooled) -> float:
    """The standard error of log(left std / right std), both samples drawn alike."""
    kurtosis = max(NORMAL_KURTOSIS, *(each.kurtosis for each in (left, right) if not math.isnan(each.kurtosis)))
    return math.sqrt((kurtosis - 1) / 4 * (1 / left.elements + 1 / right.elements))


def ratio_departure(left: Pooled, right: Pooled) -> float:
    """log(left std / right std) in standard errors; infinite where one side alone is constant, 0 where both are."""
    if not (left.elements and right.elements):
        return math.nan
    if left.std == 0 or right.std == 0:
        return 0.0 if left.std == right.std else math.copysign(math.inf, left.std - right.std)
    return math.log(left.std / right.std) / ratio_error(left, right)


def mean_departure(left: Distribution, right: Distribution) -> float:
    """The difference of the means in standard errors."""
    error = math.sqrt(left.std**2 / max(1, left.finite) + right.std**2 / max(1, right.finite))
    return (left.mean - right.mean) / error if error else 0.0


def correlation_departure(correlation: float, elements: int) -> float:
    """A correlation in the standard errors of independent samples; NaN for a constant."""
    if math.isnan(correlation) or elements <= 3:
        return math.nan
    held = max(-1 + 1e-15, min(1 - 1e-15, correlation))
    return math.atanh(held) * math.sqrt(elements - 3)
