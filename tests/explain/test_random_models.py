"""Models of the right standard deviations that no random state of GPT-NeoX's made are never claimed, in no part."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest

from publish.explain.explain import explain
from publish.explain.models import Bits, InitialModel, Shard
from publish.formats.dtypes import from_float32
from publish.neox.state import RandomState, decode
from tests.explain.neoxfiles import Model, on_cpu, on_gpu

MODELS = int(os.environ.get("PUBLISH_RANDOM_MODELS", "24"))  # 1,000 take a few minutes


def rows(values: Bits, count: int | None) -> Bits:
    return values[:count]


def random_model(number: int, state: RandomState | None) -> InitialModel:
    """numpy's PCG64 draws it; the dtypes take turns, so do layouts and what is stored."""
    random = np.random.default_rng(number)
    dtype = ("float16", "bfloat16", "float32")[number % 3]
    shards = {}
    for place, shape, std in Model(layers=1, hidden=32, vocabulary=128).drawn():
        values = from_float32(random.standard_normal(shape).astype(np.float32) * np.float32(std), dtype)
        index, local = place.split(".", 1)
        name = {"0": "embedding.weight", "5": "unembedding.weight"}.get(index, f"layers.0.{local}")
        shards[name] = Shard(name, name, shape, dtype, std, partial(rows, values))
    layout = ("sequential", "pipeline")[number % 2]
    return InitialModel("memory", (shards,), layout=layout, stages=1, seed=number, states=(state,) if state else ())


@pytest.fixture(scope="module")
def states() -> list[RandomState | None]:
    found = [decode(on_cpu(Model()).states[0] or b""), decode(on_gpu(Model(), 1024).states[0] or b"")]
    assert all(found)
    return [None, *found]


@pytest.mark.slow
def test_none_is_claimed(states: list[RandomState | None]) -> None:
    outcomes = set()
    for number in range(MODELS):
        answer = explain([random_model(number, states[number % len(states)])], 0)
        found = answer.explanation
        outcomes.add((found.outcome, found.bit_equal))
    assert outcomes == {("not-reproduced", 0)}


@pytest.mark.slow
def test_none_is_claimed_among_ten_thousand_seeds() -> None:
    answer = explain([random_model(1, None)], 0, range(10_000))  # in bfloat16, where chance fits most easily
    found = answer.explanation
    assert (found.outcome, found.bit_equal) == ("not-reproduced", 0)
