"""The sums against numpy on whole arrays: whatever the dtypes, the values and the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publish.compare.pair import BITWISE, BLOCK, DIFFERENT, ZERO_SIGN, PairStatistics, PairSums, Scratch, paired_chunks
from publish.formats.dtypes import from_float32, to_float32

VIEW = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}


def bits_of(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float64":
        return values.astype("<f8")
    return np.asarray(from_float32(values.astype(np.float32), dtype))


def values_of(bits: np.ndarray, dtype: str) -> np.ndarray:
    return bits if dtype == "float64" else to_float32(bits, dtype).astype("<f8")


def chunked(bits: np.ndarray, elements: int) -> list[memoryview]:
    data = memoryview(bits.tobytes())
    size = elements * bits.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]


def paired(left: np.ndarray, right: np.ndarray, dtypes: tuple[str, str], chunks: tuple[int, int]) -> PairStatistics:
    pair = PairSums(*dtypes, Scratch())
    sizes = (left.itemsize, right.itemsize)
    for both in paired_chunks(chunked(left, chunks[0]), chunked(right, chunks[1]), sizes):
        pair.add(*both)
    return pair.result()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(sorted(VIEW)),
    st.sampled_from(sorted(VIEW)),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.floats(-8, 8),
    st.integers(0, 2**32),
)
def test_figures_are_those_of_numpy(
    size: int, left: str, right: str, chunks: tuple[int, int], mean: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    ours = bits_of(generator.normal(mean, 1, size), left)
    theirs = bits_of(generator.normal(-mean, 2, size), right)
    found = paired(ours, theirs, (left, right), chunks)
    x, y = values_of(ours, left), values_of(theirs, right)
    assert found.left.elements == found.right.finite == size
    assert found.left.mean == pytest.approx(x.mean(), rel=1e-12, abs=1e-12)
    assert found.right.std == pytest.approx(y.std(), rel=1e-9, abs=1e-7)
    assert found.max_abs_diff == np.abs(x - y).max()
    assert found.mean_abs_diff == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    assert found.relative_l2 == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-9)
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-9, abs=1e-12)
    assert found.unequal == np.count_nonzero(x != y)
    if size > 4:
        assert found.left.kurtosis == pytest.approx(((x - x.mean()) ** 4).mean() / x.std() ** 4, rel=1e-6)
        assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


@pytest.mark.parametrize("dtype", VIEW)
def test_equal_bits_equal_values_and_the_sign_of_zero_are_distinguished(dtype: str) -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 3 * BLOCK), [0.0, -0.0, np.inf, np.nan]])
    ours = bits_of(values, dtype)
    flipped = bits_of(np.where(values == 0, -values, values), dtype)
    one_off = bits_of(np.where(np.arange(values.size) == BLOCK, 3.0, values), dtype)
    same = (dtype, dtype)
    assert paired(ours, ours, same, (999, 1000)).outcome == BITWISE
    signs = paired(ours, flipped, same, (999, 1000))
    assert (signs.outcome, signs.unequal, signs.max_abs_diff) == (ZERO_SIGN, 0, 0.0)
    other = paired(ours, one_off, same, (999, 1000))
    assert (other.outcome, other.unequal) == (DIFFERENT, 1)
    assert (other.left.nans, other.left.infinities) == (1, 1)


def test_tensors_of_different_dtypes_are_compared_by_value() -> None:
    half = np.random.default_rng(0).normal(0, 1, 1000).astype("f2")
    wide = half.astype("f4")
    assert paired(half, wide, ("float16", "float32"), (7, 11)).outcome == BITWISE
    assert paired(half, -wide + 0, ("float16", "float32"), (7, 11)).outcome == DIFFERENT
    zeros = np.zeros(5, "f2")
    assert paired(zeros, -zeros.astype("f4"), ("float16", "float32"), (7, 11)).outcome == ZERO_SIGN


def test_not_finite_values_are_left_out_of_the_figures_and_counted() -> None:
    x, y = np.array([1, 2, np.nan, 4, np.inf], "f4"), np.array([1, np.inf, np.nan, 6, np.inf], "f4")
    found = paired(x, y, ("float32", "float32"), (9, 9))
    assert (found.left.nans, found.left.infinities, found.right.infinities) == (1, 1, 2)
    assert (found.unequal, found.max_abs_diff, found.mean_abs_diff) == (2, 2.0, 1.0)
    assert found.left.mean == pytest.approx(7 / 3)


def test_a_constant_has_a_standard_deviation_of_exactly_zero() -> None:
    values = np.full(3 * BLOCK + 5, 1.1, "f2")
    found = paired(values, values + np.float16(0.1), ("float16", "float16"), (1000, 1000))
    assert (found.left.std, found.right.std) == (0.0, 0.0)
    assert np.isnan(found.correlation)
    assert found.left.mean == np.float16(1.1)
