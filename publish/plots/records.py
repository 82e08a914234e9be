"""What a plot is drawn from: plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from publish.errors import CardError


@dataclass(frozen=True, slots=True)
class Curve:
    """One line over training: ``values`` at ``steps``, which ascend. None where there is no value."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values) or list(self.steps) != sorted(set(self.steps)):
            raise CardError("a curve needs one value for each of its ascending steps", self.name, "mend the figures")


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two standard deviations of one layer type, and its standard error if both are one distribution."""

    layer_type: str
    ratio: float
    error: float


@dataclass(frozen=True, slots=True)
class ComparedType:
    """One layer type of two models: deviations, the predicted one where known, their ratio, and how far chance goes.

    ``ratio`` and ``chance`` are None where a side is constant.
    """

    name: str
    left: float
    right: float
    predicted: float | None
    ratio: float | None
    chance: float | None
