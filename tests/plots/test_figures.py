"""Figures of layer types from sketches of tensors: what all elements together would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from publish.plots.figures import layer_figures


@dataclass(frozen=True)
class Whole:
    """A tensor sampled at every place."""

    sample: Any

    @property
    def elements(self) -> int:
        return int(self.sample.size)

    @property
    def mean(self) -> float:
        return float(self.sample.mean())

    @property
    def std(self) -> float:
        return float(self.sample.std())


def kind(name: str) -> str:
    return name[0]


def suite() -> dict[int, dict[str, Any]]:
    random = np.random.default_rng(0)
    return {
        step: {"a1": random.normal(1, 2, 500) + step, "a2": random.normal(-1, 1, 100), "b": random.normal(0, 3, 50)}
        for step in (0, 1, 2)
    }


def test_the_figures_are_those_of_all_elements_together() -> None:
    values = suite()
    found = layer_figures({step: {n: Whole(v) for n, v in each.items()} for step, each in values.items()}, kind)
    joined = {step: np.concatenate([each["a1"], each["a2"]]) for step, each in values.items()}
    for step in (0, 1, 2):
        assert found[step]["a"]["std"] == pytest.approx(joined[step].std(), rel=1e-5)
    assert found[0]["a"]["from_first"] is None
    for key, other in (("from_first", 0), ("from_previous", 1)):
        right = np.linalg.norm(joined[2] - joined[other]) / np.linalg.norm(joined[other])
        assert found[2]["a"][key] == pytest.approx(right, rel=1e-5)


def test_what_has_no_norm_or_no_earlier_step_has_no_distance() -> None:
    zeros, ones = Whole(np.zeros(4)), Whole(np.ones(4))
    broken = Whole(np.array([np.nan]))
    found = layer_figures({0: {"b": zeros}, 1: {"b": ones, "a": ones}, 2: {"b": broken, "a": ones}}, kind)
    assert found[1]["b"] == {"std": 0.0, "from_first": None, "from_previous": None}
    assert found[1]["a"]["from_first"] is None
    assert found[2]["a"]["from_previous"] == 0.0
    assert found[2]["b"]["std"] is None
