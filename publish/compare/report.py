"""A comparison as JSON, and as rows for tables: of the terminal, of Markdown, of a card."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from publish.compare.pair import (
    BITWISE,
    DIFFERENT,
    ONLY_LEFT,
    ONLY_RIGHT,
    SHAPE,
    ZERO_SIGN,
    Comparison,
    TensorComparison,
)
from publish.compare.verdict import ComparisonTests, TypeComparison, Verdict, stated_differences, verdict_of
from publish.explain.answer import Answer

COLUMNS = ("Layer type", "Left std", "Right std", "Ratio", "Chance", "Predicted")
_MEANINGS: Mapping[str, str] = {
    "identical": "The same weights, bit for bit",
    "equal-up-to-zero-sign": "The same weights up to the sign of zeros",
    "same-init-different-rng": "The same initialisation, drawn from another random state",
    "different-init": "Initialised differently",
    "trained-apart": "Trained apart",
    "not-comparable": "Not the same tensors",
}


@dataclass(frozen=True)
class Report:
    """A comparison with its verdict. ``explained``: both models' initial weights recomputed, if that was asked for."""

    comparison: Comparison
    explained: tuple[Answer, ...] = ()

    @cached_property
    def tests(self) -> ComparisonTests:
        return ComparisonTests(self.comparison)

    @cached_property
    def verdict(self) -> Verdict:
        return verdict_of(self.tests, self.explained)

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        return f"{_MEANINGS[self.verdict.name]} ({self.verdict.name})"

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        count = self.comparison.count
        return (
            ("tensors", self.comparison.common),
            ("bitwise_equal", count(BITWISE)),
            ("equal_up_to_zero_sign", count(ZERO_SIGN)),
            ("different", count(DIFFERENT)),
            ("only_left", count(ONLY_LEFT)),
            ("only_right", count(ONLY_RIGHT)),
            ("shape_mismatch", count(SHAPE)),
        )

    @property
    def count(self) -> str:
        """The counts in words."""
        return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.counts if value)

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``; a figure that is no number is null."""
        left, right = self.comparison.left, self.comparison.right
        apart = [f.max_abs_diff for t, f in self.comparison.compared.values() if t.outcome == DIFFERENT]
        return {
            "left": left.where,
            "right": right.where,
            "left_format": left.format,
            "right_format": right.format,
            **dict(self.counts),
            "max_abs_diff": {"min": _number(min(apart, default=None)), "max": _number(max(apart, default=None))},
            "layer_types": [_type(each) for each in self.tests.types],
            "verdict": self.verdict.name,
            "reasons": list(self.verdict.reasons),
            "origins": [
                {"name": d.name, "left": d.left, "right": d.right}
                for d in stated_differences(left.provenance, right.provenance)
            ],
            "limit": _number(self.tests.limit),
            "details": [_detail(tensor) for tensor in self.comparison.tensors],
        }

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Cells under `COLUMNS`; ``Chance`` is how far the ratio may be from 1, corrected for all tests."""
        return tuple(self._row(each) for each in self.tests.types)

    def _row(self, each: TypeComparison) -> tuple[str, ...]:
        expected, chance = each.predicted, self._chance(each)
        return (
            each.name,
            shown(each.left.std),
            shown(each.right.std),
            shown(each.ratio),
            "" if chance is None else f"\u00b1 {chance:.4f}",
            "" if expected is None else shown(expected),
        )

    def _chance(self, each: TypeComparison) -> float | None:
        """How far the ratio may be from 1 if both sides are drawn alike."""
        return self.tests.limit * each.error / each.ratio if math.isfinite(each.ratio) else None

    def plotted(self) -> Iterator[tuple[str, float, float, float | None, float | None, float | None]]:
        """Name, both deviations, the predicted one, ratio and chance of the types that have a deviation."""
        for each in self.tests.types:
            if each.left.std > 0 or each.right.std > 0:
                ratio = _number(each.ratio)
                yield each.name, each.left.std, each.right.std, each.predicted, ratio, self._chance(each)

    def markdown(self) -> str:
        """Verdict, reasons and the table, for a card or an issue."""
        left, right = self.comparison.left.where, self.comparison.right.where
        lines = [f"**{self.sentence}**: `{left}` (left) and `{right}` (right); {self.count}.", ""]
        lines += [*(f"- {_plain(reason)}" for reason in self.verdict.reasons), ""]
        lines += [_line(COLUMNS), "|---|" + "---:|" * (len(COLUMNS) - 1), *(map(_line, self.rows()))]
        return "\n".join(lines) + "\n"


def shown(value: float) -> str:
    """Four decimals where that says something, else three digits; nothing for what is no number."""
    if not math.isfinite(value):
        return ""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """A reason in Markdown: what stands for something else there is escaped."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in text)


def _type(each: TypeComparison) -> dict[str, Any]:
    left, right = each.expected
    return {
        "name": each.name,
        "left_std": _number(each.left.std),
        "right_std": _number(each.right.std),
        "ratio": _number(each.ratio),
        "ratio_error": _number(each.error),
        "expected_std": _number(each.predicted),
        "left_expected_std": _number(left),
        "right_expected_std": _number(right),
        "elements": each.left.elements,
    }


def _detail(tensor: TensorComparison) -> dict[str, Any]:
    document: dict[str, Any] = {"name": tensor.name, "layer_type": tensor.layer_type, "outcome": tensor.outcome}
    for side, stored in (("left", tensor.left), ("right", tensor.right)):
        document[f"{side}_shape"] = None if stored is None else list(stored.shape)
        document[f"{side}_dtype"] = None if stored is None else stored.dtype
    found = tensor.statistics
    if found is None:
        return document
    fields: Iterable[str] = ("max_abs_diff", "mean_abs_diff", "relative_l2", "cosine", "correlation")
    document |= {"bitwise_equal": tensor.outcome == BITWISE, "unequal": found.unequal}
    document |= {name: _number(getattr(found, name)) for name in fields}
    for side, values in (("left", found.left), ("right", found.right)):
        document |= {f"{side}_std": _number(values.std), f"{side}_mean": _number(values.mean)}
        document |= {f"{side}_nans": values.nans, f"{side}_infinities": values.infinities}
    return document


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
