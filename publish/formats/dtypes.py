"""Tensors as numpy arrays. numpy has no bfloat16: such a tensor is an array of uint16, its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.dtypes import BY_STORAGE

VIEWS: Mapping[str, np.dtype[Any]] = {
    dtype.name: np.dtype("<u2" if dtype.name == "bfloat16" else dtype.name).newbyteorder("<")
    for dtype in BY_STORAGE.values()
}
"""The numpy dtype, little endian, of each dtype that a torch archive can hold."""
_QUIET_NAN = np.uint16(0x7FC0)


def to_float32(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The numbers of ``array``, whose numpy dtype is ``VIEWS[dtype]``, as float32; exact up to float32."""
    if dtype == "bfloat16":
        wide: NDArray[np.float32] = (array.astype("<u4") << np.uint32(16)).view("<f4")
        return wide
    return array.astype("<f4", copy=False)


def from_float32(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """``array`` rounded to nearest, ties to even; out of range becomes infinity."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array).view("<u4")
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return np.where(np.isnan(array), _QUIET_NAN, rounded.astype("<u2"))
    with np.errstate(over="ignore"):
        return array.astype(VIEWS[dtype], copy=False)


def cast(array: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """``array`` converted from the dtype ``source`` to ``target``; the same array if they are equal."""
    return array if source == target else from_float32(to_float32(array, source), target)
