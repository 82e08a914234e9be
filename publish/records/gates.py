"""What a gate found on one step, or on a whole suite: passed, failed or skipped, with the figures that it measured."""

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
class Gate:
    """One gate and its outcome. ``detail`` names tensors and numbers; ``figures`` are finite JSON values."""

    name: str
    outcome: str  # PASSED, FAILED or SKIPPED
    detail: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def passed(name: str, detail: str, **figures: Figure) -> Gate:
    return Gate(name, PASSED, detail, _finite(figures))


def failed(name: str, detail: str, **figures: Figure) -> Gate:
    return Gate(name, FAILED, detail, _finite(figures))


def skipped(name: str, detail: str, **figures: Figure) -> Gate:
    return Gate(name, SKIPPED, detail, _finite(figures))


def could_not_read(name: str, error: GateError) -> Gate:
    """The failure of a gate whose input is itself broken."""
    return failed(name, f"{error.what} (at {error.where})")


def require(gates: Iterable[Gate], where: object) -> None:
    """Stop at the gates that failed.

    Raises:
        GateError: names every failed gate with its detail.
    """
    if bad := [gate for gate in gates if gate.outcome == FAILED]:
        raise GateError("; ".join(f"{gate.name}: {gate.detail}" for gate in bad), where, _FIX)


def _finite(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """JSON has no NaN and no infinity: they are written as text."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
