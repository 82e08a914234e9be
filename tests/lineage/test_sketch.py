"""A step's sketch: the same however its bytes come, what it stores read back, and negative zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from publish.compare.pair import BLOCK
from publish.convert.plan import ConversionPlan, Recipe, make_plan
from publish.convert.writer import Digest
from publish.errors import HubError
from publish.lineage.sketch import Sketcher, TensorSketch, document, from_document
from tests.convert.rawmodel import NEOX, Case, config_of, raw_of

NAME = "gpt_neox.embed_in.weight"


@pytest.fixture(scope="module")
def plan() -> ConversionPlan:
    case = Case(NEOX)
    _, raw = raw_of(case)
    return make_plan(raw, config_of(case))


def recipe_of(plan: ConversionPlan, elements: int, dtype: str = "float16") -> Recipe:
    found = next(recipe for recipe in plan.recipes if recipe.name == NAME)
    return replace(found, shape=(elements, 1), dtype=dtype)


def drawn(plan: ConversionPlan, values: np.ndarray, dtype: str, chunk: int) -> tuple[TensorSketch, Sketcher]:
    sketcher, recipe = Sketcher(plan), recipe_of(plan, values.size, dtype)
    data, digest = memoryview(values.tobytes()), Digest()
    for start in range(0, len(data), chunk * values.itemsize):
        piece = data[start : start + chunk * values.itemsize]
        sketcher(recipe, piece, digest)
        digest.update(piece)
    return sketcher.result()[NAME], sketcher


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_sketch_does_not_depend_on_the_chunks(plan: ConversionPlan, dtype: str) -> None:
    values = np.random.default_rng(0).normal(0, 0.1, 9 * BLOCK + 77).astype(dtype)
    values[::1000] = -0.0
    sketches = [drawn(plan, values, dtype, chunk)[0] for chunk in (1000, BLOCK, 3 * BLOCK - 5, values.size)]
    assert all(sketch == sketches[0] for sketch in sketches)
    assert sketches[0].std == pytest.approx(values.std(), rel=0.02)
    assert np.isin(sketches[0].sample, values.astype(float)).all()
    assert from_document(document({NAME: sketches[0]}), "here") == {NAME: sketches[0]}


def test_only_zeros_of_another_sign_keep_the_second_digest(plan: ConversionPlan) -> None:
    values = np.random.default_rng(0).normal(0, 0.1, 3 * BLOCK).astype("f2")
    values[[5, 2 * BLOCK]] = 0
    flipped = values.copy()
    flipped[2 * BLOCK] = -0.0
    other = values.copy()
    other[7] = 1
    plain, signed, changed = (drawn(plan, each, "float16", 10_000)[0] for each in (values, flipped, other))
    assert plain.digest == plain.unsigned == signed.unsigned != signed.digest
    assert changed.unsigned != plain.unsigned


def test_every_value_that_is_not_finite_is_counted(plan: ConversionPlan) -> None:
    values = np.ones(6 * BLOCK, "f2")
    values[BLOCK + 1], values[5 * BLOCK] = np.nan, np.inf
    _, sketcher = drawn(plan, values, "float16", 50_000)
    found = sketcher.counts[NAME]
    assert (found.elements, found.nans, found.infinities) == (6 * BLOCK, 1, 1)


@pytest.mark.parametrize("key", ["xxh3", "dtype", "sample", "std"])
def test_a_damaged_record_is_an_error(plan: ConversionPlan, key: str) -> None:
    record = document({NAME: drawn(plan, np.ones(64, "f2"), "float16", 64)[0]})
    for broken in ({k: v for k, v in record[NAME].items() if k != key}, {**record[NAME], key: ["?"]}):
        if key == "xxh3" and key in broken:
            continue  # any text is a digest
        with pytest.raises(HubError, match="statistics cannot be read"):
            from_document({NAME: broken}, "step1/publish.json")
