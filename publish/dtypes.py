"""The dtypes of tensors: what torch, its archives and safetensors call them, and how many bits they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype: its ``name`` in torch, its name in a safetensors header, the class of its storage in a torch archive.

    ``fraction``: the bits of a float after the point, without the implied one; None for types that are not IEEE-like.
    """

    name: str
    safetensors: str
    bits: int
    storage: str | None = None
    fraction: int | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one element. Types below 8 bits have none: they are packed."""
        assert self.bits % 8 == 0
        return self.bits // 8

    @property
    def ulp(self) -> float:
        """The largest distance between neighbouring numbers, relative to the smaller."""
        assert self.fraction is not None
        return 2.0**-self.fraction

    @property
    def infinity(self) -> int:
        """The bits of plus infinity. Without the sign, those of every NaN are larger."""
        assert self.fraction is not None
        exponent = self.bits - 1 - self.fraction
        return ((1 << exponent) - 1) << self.fraction


# Names: torch's dtypes; ml_dtypes' for the two that torch lacks. Storages: torch/storage.py. Headers: safetensors 0.7,
# safetensors/src/tensor.rs.
_ALL = (
    DType("float16", "F16", 16, "HalfStorage", 10),
    DType("bfloat16", "BF16", 16, "BFloat16Storage", 7),
    DType("float32", "F32", 32, "FloatStorage", 23),
    DType("float64", "F64", 64, "DoubleStorage", 52),
    DType("uint8", "U8", 8, "ByteStorage"),
    DType("int8", "I8", 8, "CharStorage"),
    DType("int16", "I16", 16, "ShortStorage"),
    DType("int32", "I32", 32, "IntStorage"),
    DType("int64", "I64", 64, "LongStorage"),
    DType("bool", "BOOL", 8, "BoolStorage"),
    DType("uint16", "U16", 16),
    DType("uint32", "U32", 32),
    DType("uint64", "U64", 64),
    DType("complex64", "C64", 64),
    DType("float8_e4m3fn", "F8_E4M3", 8),
    DType("float8_e5m2", "F8_E5M2", 8),
    DType("float8_e8m0fnu", "F8_E8M0", 8),
    DType("float6_e2m3fn", "F6_E2M3", 6),
    DType("float6_e3m2fn", "F6_E3M2", 6),
    DType("float4_e2m1fn", "F4", 4),
)
DTYPES: Mapping[str, DType] = {dtype.name: dtype for dtype in _ALL}
BY_SAFETENSORS: Mapping[str, DType] = {dtype.safetensors: dtype for dtype in _ALL}
BY_STORAGE: Mapping[str, DType] = {dtype.storage: dtype for dtype in _ALL if dtype.storage is not None}

WEIGHT_DTYPES = ("float16", "bfloat16", "float32")
"""The dtypes that a model's weights are converted from and to."""
