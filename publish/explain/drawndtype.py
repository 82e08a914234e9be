"""The dtype that weights were drawn in, where a file holds them in a wider one."""

from __future__ import annotations

import numpy as np

from publish.convert.dtypes import from_float32, to_float32
from publish.explain.subject import Bits
from publish.explain.tensorfile import FileTensor

_NARROW = ("float16", "bfloat16")
_ROWS = 16  # that are looked at


def drawn_dtype(tensor: FileTensor) -> str:
    """The narrowest dtype that holds the tensor's first rows exactly: float32 ones may be upcast halves."""
    if tensor.dtype != "float32":
        return tensor.dtype
    head = tensor.rows(0, min(_ROWS, tensor.shape[0]))
    with np.errstate(invalid="ignore"):
        held = (dtype for dtype in _NARROW if np.array_equal(to_float32(from_float32(head, dtype), dtype), head))
        return next(held, tensor.dtype)


def narrowed(values: Bits, source: str, target: str) -> Bits:
    """The values in ``target``; one that it does not hold exactly becomes NaN, which nothing draws."""
    if source == target:
        return values
    with np.errstate(invalid="ignore"):
        narrow = from_float32(values, target)
        odd = to_float32(narrow, target) != values
    narrow[odd] = from_float32(np.full(1, np.nan, np.float32), target)
    return narrow
