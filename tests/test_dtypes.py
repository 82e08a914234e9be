"""The table of dtypes, against torch and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from publish.dtypes import BY_SAFETENSORS, BY_STORAGE, DTYPES, WEIGHT_DTYPES
from publish.formats.dtypes import VIEWS

IN_TORCH = [name for name in DTYPES if hasattr(torch, name)]


@pytest.mark.parametrize("name", IN_TORCH)
def test_sizes_are_torchs(name: str) -> None:
    assert DTYPES[name].itemsize == getattr(torch, name).itemsize


@pytest.mark.parametrize("name", [name for name, dtype in DTYPES.items() if dtype.fraction is not None])
def test_the_last_place_and_infinity_are_torchs(name: str) -> None:
    dtype = getattr(torch, name)
    assert DTYPES[name].ulp == torch.finfo(dtype).eps
    bits = torch.tensor([float("inf")], dtype=dtype).view(
        {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    )
    assert DTYPES[name].infinity == bits.item()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_and_views_are_torchs() -> None:
    for name, dtype in BY_STORAGE.items():
        assert getattr(torch, name).dtype == getattr(torch, dtype.name)
        assert VIEWS[dtype.name].itemsize == dtype.itemsize
    assert VIEWS["bfloat16"] == np.dtype("<u2")
    assert set(WEIGHT_DTYPES) < VIEWS.keys()


def test_every_name_in_safetensors_is_used_once() -> None:
    assert len(BY_SAFETENSORS) == len(DTYPES)
