"""From what is kept of every step's tensors to the figures that plots show, by layer type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Tensor(Protocol):
    """One tensor of one step: its distribution, and its values at places that are the same in every step."""

    @property
    def elements(self) -> int: ...

    @property
    def mean(self) -> float: ...

    @property
    def std(self) -> float: ...

    @property
    def sample(self) -> NDArray[Any]: ...


Step = Mapping[str, Tensor]
Figures = dict[str, dict[str, float | None]]


def layer_figures(suite: Mapping[int, Step], layer_type: Callable[[str], str]) -> dict[int, Figures]:
    """For every step and layer type: ``std`` of all its weights, ``from_first`` and ``from_previous``.

    Distances are relative to the norm of the earlier weights, estimated on the samples; None where there is no
    earlier step, or its norm is 0. ``suite`` has its steps in order; figures have six digits.
    """
    figures: dict[int, Figures] = {}
    first: Step | None = None
    previous: Step | None = None
    for step, tensors in suite.items():
        groups: dict[str, list[str]] = {}
        for name in tensors:
            groups.setdefault(layer_type(name), []).append(name)
        figures[step] = {
            kind: {
                "std": _rounded(_pooled_std([tensors[name] for name in names])),
                "from_first": _distance(names, first, tensors),
                "from_previous": _distance(names, previous, tensors),
            }
            for kind, names in groups.items()
        }
        first, previous = first or tensors, tensors
    return figures


def _pooled_std(tensors: list[Tensor]) -> float:
    """Of all elements together: the mean of the squares less the square of the mean."""
    elements = sum(each.elements for each in tensors)
    mean = sum(each.elements * each.mean for each in tensors) / elements
    squares = sum(each.elements * (each.std**2 + (each.mean - mean) ** 2) for each in tensors)
    return math.sqrt(squares / elements)


def _distance(names: list[str], earlier: Step | None, now: Step) -> float | None:
    """Each tensor's samples stand for all its elements."""
    if earlier is None or any(name not in earlier for name in names):
        return None
    moved = norm = 0.0
    for name in names:
        was = np.asarray(earlier[name].sample, np.float64)
        weight = now[name].elements / max(1, was.size)
        moved += weight * float(np.square(np.asarray(now[name].sample, np.float64) - was).sum())
        norm += weight * float(np.square(was).sum())
    return _rounded(math.sqrt(moved / norm)) if norm else None


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
