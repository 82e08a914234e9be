"""What a gate says: passed, failed or skipped, with the figures that it measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import GateError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
Figure = float | int | str

_FIX = "nothing was published of this step; look at the named tensors, then convert it again"


@dataclass(frozen=True, slots=True)
class GateResult:
    """The outcome of one gate. ``detail`` names tensors and numbers; ``figures`` are JSON values, all finite."""

    name: str
    outcome: str  # passed, failed, skipped
    detail: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``, figures included."""
        return {"name": self.name, "outcome": self.outcome, "detail": self.detail, "figures": dict(self.figures)}


def passed(name: str, detail: str, **figures: Figure) -> GateResult:
    return GateResult(name, PASSED, detail, _finite(figures))


def failed(name: str, detail: str, **figures: Figure) -> GateResult:
    return GateResult(name, FAILED, detail, _finite(figures))


def skipped(name: str, detail: str, **figures: Figure) -> GateResult:
    return GateResult(name, SKIPPED, detail, _finite(figures))


def could_not_read(name: str, error: GateError) -> GateResult:
    """The failure of a gate whose input is itself broken."""
    return failed(name, f"{error.what} (at {error.where})")


def require(results: Iterable[GateResult], where: object) -> None:
    """Stop at the gates that failed.

    Raises:
        GateError: names every failed gate with its detail.
    """
    if bad := [result for result in results if result.outcome == FAILED]:
        raise GateError("; ".join(f"{result.name}: {result.detail}" for result in bad), where, _FIX)


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = len(every) - limit
    return ", ".join(every[:limit]) + (f" and {more} more" if more > 0 else "")


def _finite(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """JSON has no NaN and no infinity: they stand as text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
