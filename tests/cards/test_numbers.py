"""Numbers as a reader takes them in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.cards.details import decimal, describe_steps, percent
from publish.schedule import LOG_SPACED_20, PYTHIA


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001, "1e-3"), (0.00016, "1.6e-4"), (1e-08, "1e-8"), (0.1, "0.1"), (1.0, "1"), (0.0, "0"), (0, "0"),
     (10000, "10,000"), (500000.0, "500,000"), (0.015, "0.015"), (-0.001, "-1e-3")],
)  # fmt: skip
def test_decimal(value: float, text: str) -> None:
    assert decimal(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_is_exact(value: float) -> None:
    assert float(decimal(value).replace(",", "")) == value


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.01, "1 %"), (1 / 143, "0.699 %"), (1.0, "100 %"), (0.0, "0 %"), (0.25, "25 %")]
)
def test_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (PYTHIA, "0, 1, 2, 4, ..., 512, then every 1,000 to 143,000"),
        (LOG_SPACED_20, "0, 1, 2, 4, ..., 512, 1,000, 2,000, 4,000, ..., 128,000, 143,000"),
        ((0,), "0"),
        ((0, 7), "0, 7"),
        ((0, 10, 20, 30, 40), "from 0 every 10 to 40"),
        ((5, 100, 200, 300, 400), "5, then every 100 to 400"),
        ((5, 1000, 1010, 1020, 1030), "5, then from 1,000 every 10 to 1,030"),
    ],
)
def test_describe_steps(steps: tuple[int, ...], text: str) -> None:
    assert describe_steps(steps) == text
