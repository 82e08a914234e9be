"""A comparison as JSON, as a record for a manifest, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from publish.cards.sentences import COUNTS, counts, layer_type_table, sentence, verdict
from publish.cards.text import plain
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
from publish.explain.explain import Answer
from publish.records.manifest import ComparedLayerType, ComparisonRecord

_DIGITS = 9  # of a figure in a record: more would depend on the machine


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

    @cached_property
    def record(self) -> ComparisonRecord:
        """The comparison's values, for a manifest."""
        count = self.comparison.count
        predicts = any(map(self.tests.at_initialisation, ("left", "right")))
        return ComparisonRecord(
            location=self.comparison.right.where,
            verdict=self.verdict.name,
            tensors=self.comparison.common,
            bitwise_equal=count(BITWISE),
            equal_up_to_zero_sign=count(ZERO_SIGN),
            different=count(DIFFERENT),
            only_left=count(ONLY_LEFT),
            only_right=count(ONLY_RIGHT),
            shape_mismatch=count(SHAPE),
            limit=_round(self.tests.limit),
            layer_types=tuple(_layer_type(kind, kind.predicted if predicts else None) for kind in self.tests.types),
            reasons=self.verdict.reasons,
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the verdict, a sentence each."""
        return tuple(map(sentence, self.verdict.reasons))

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish compare``; a figure that is not finite is null."""
        left, right, record = self.comparison.left, self.comparison.right, self.record
        different = [f.max_abs_diff for t, f in self.comparison.compared.values() if t.outcome == DIFFERENT]
        expected = [kind.expected for kind in self.tests.types]
        return {
            "left": left.where,
            "right": right.where,
            "left_format": left.format,
            "right_format": right.format,
            **{name: getattr(record, name) for name in COUNTS},
            "max_abs_diff": {
                "min": _finite(min(different, default=None)),
                "max": _finite(max(different, default=None)),
            },
            "layer_types": [
                {**asdict(layer_type), "left_expected_std": ours, "right_expected_std": theirs}
                for layer_type, (ours, theirs) in zip(record.layer_types, expected, strict=True)
            ],
            "verdict": record.verdict,
            "reasons": list(self.reasons),
            "stated_differences": [asdict(stated) for stated in stated_differences(left.provenance, right.provenance)],
            "limit": record.limit,
            "details": [_detail(tensor) for tensor in self.comparison.tensors],
        }

    def markdown(self) -> str:
        """Verdict, reasons and the table, for a card or an issue."""
        left, right, record = self.comparison.left.where, self.comparison.right.where, self.record
        lines = [f"**{verdict(record)}**: `{left}` (left) and `{right}` (right); {counts(record)}.", ""]
        lines += [*(f"- {plain(reason)}" for reason in self.reasons), ""]
        header, rows = layer_type_table(record)
        lines += [_line(header), "|---|" + "---:|" * (len(header) - 1), *map(_line, rows)]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _layer_type(kind: TypeComparison, predicted: float | None) -> ComparedLayerType:
    return ComparedLayerType(
        name=kind.name,
        elements=kind.left.elements,
        left_std=_rounded(kind.left.std),
        right_std=_rounded(kind.right.std),
        ratio=_rounded(kind.ratio),
        ratio_error=_rounded(kind.error),
        expected_std=_rounded(predicted),
    )


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
    document |= {name: _finite(getattr(found, name)) for name in fields}
    for side, values in (("left", found.left), ("right", found.right)):
        document |= {f"{side}_std": _finite(values.std), f"{side}_mean": _finite(values.mean)}
        document |= {f"{side}_nans": values.nans, f"{side}_infinities": values.infinities}
    return document


def _rounded(value: float | None) -> float | None:
    return _round(value) if value is not None and math.isfinite(value) else None


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
