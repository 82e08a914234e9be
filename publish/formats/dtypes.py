"""Numbers of float16, bfloat16 and float32 in numpy, which has no bfloat16: it stands as the uint16 of its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

VIEWS: Mapping[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
SAFETENSORS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_QUIET_NAN = np.uint16(0x7FC0)


def to_float32(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The numbers of ``array`` (the view that ``dtype`` has here), exactly, as float32."""
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
    """``array`` from ``source`` to ``target``; the same array where they are one."""
    return array if source == target else from_float32(to_float32(array, source), target)
