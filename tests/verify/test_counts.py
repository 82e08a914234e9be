"""Counts of NaN and infinity, the probe tokens, and what is imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from publish.verify.gates import NonFinite, count_non_finite
from publish.verify.logits import probe_tokens

VIEWS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}


def stored(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "bfloat16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(VIEWS[dtype]).tobytes()


@pytest.mark.parametrize("dtype", VIEWS)
def test_nan_and_infinity_are_counted(dtype: str) -> None:
    values = np.array([1, np.nan, np.inf, -np.inf, 3, -0.0, np.nan], "<f4")
    data = stored(values, dtype)
    assert count_non_finite(data, dtype) == NonFinite(7, 2, 2)
    assert count_non_finite(stored(np.full(9, 6e4), dtype), dtype) == NonFinite(9, 0, 0)


def test_an_empty_tensor() -> None:
    assert count_non_finite(b"", "float16") == NonFinite(0, 0, 0)


def test_probe_tokens_never_change() -> None:
    tokens = probe_tokens(50277, 2048)
    assert (tokens.shape, tokens.dtype) == ((2, 64), np.int64)
    assert tokens[0, :4].tolist() == [27026, 48998, 37345, 9649]
    assert np.array_equal(tokens, probe_tokens(50277, 2048))
    assert probe_tokens(7, 16).max() == 6
    assert probe_tokens(7, 16).shape == (2, 16)
    assert probe_tokens(7, 2048, window=100).shape == (2, 116)
    assert probe_tokens(7, 8192, window=4095).shape == (2, 64)
    with pytest.raises(ValueError, match="vocabulary of 0"):
        probe_tokens(0, 16)


def test_gates_import_neither_torch_nor_transformers() -> None:
    code = "import sys, publish.verify.gates; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
