"""What a safetensors header claims of its file.

Format: https://huggingface.co/docs/safetensors: a length (8 bytes, little endian), a JSON header, the tensors' bytes.
Published files may be anybody's, so every dtype is let in, and what is not true of the file is kept to be told.
:mod:`publish.verify.weightfile` is stricter: it proves files that we wrote.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = 8  # bytes of the length
LARGEST = 100_000_000  # safetensors' own limit for a header
# bits per element; F4 and F8 kinds as of safetensors 0.7
BITS: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


class NoHeader(ValueError):
    """The bytes are no safetensors header."""


@dataclass(frozen=True, slots=True)
class HeaderTensor:
    """A tensor: ``offset`` from the file's start, both in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's header. ``problems``: claims that contradict each other. ``end``: where the last tensor ends.

    A file that ends inside its header has ``tensors`` empty and says so in ``problems``.
    """

    tensors: tuple[HeaderTensor, ...]
    end: int
    problems: tuple[str, ...] = ()

    @property
    def begin(self) -> int:
        """Where the tensors begin: bytes to read of a like file."""
        return min((tensor.offset for tensor in self.tensors), default=PREFIX)

    @property
    def data_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def length_of(prefix: bytes) -> int:
    """The header's length in bytes, from the file's first 8.

    Raises:
        NoHeader: more than a header may have: these are not the first bytes of a safetensors file.
    """
    length: int = struct.unpack("<Q", prefix)[0]
    if not 2 <= length <= LARGEST:
        raise NoHeader(f"a header of {length:,} bytes is claimed")
    return length


def cut_short(length: int, size: int) -> Header:
    """The header of a file of ``size`` bytes that ends inside it."""
    return Header((), PREFIX + length, (f"a header of {length:,} bytes is claimed in a file of {size:,}",))


def parse_header(text: bytes) -> Header:
    """The header whose JSON is ``text``.

    Raises:
        NoHeader: no JSON object of tensors.
    """
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(entries, dict):
            raise NoHeader("the header is no JSON object")
        begin = PREFIX + len(text)
        tensors = [_tensor(name, entry, begin) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise NoHeader(f"the header is none: {error}") from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    problems = []
    at = begin
    for tensor in tensors:
        if tensor.offset != at:
            problems.append(f"{tensor.name} begins at byte {tensor.offset:,}, not {at:,}")
        bits = math.prod(tensor.shape) * BITS.get(tensor.dtype, 0)
        if tensor.dtype in BITS and -(-bits // 8) != tensor.nbytes:
            shape = list(tensor.shape)
            problems.append(f"{tensor.name} is {tensor.dtype} {shape} and has {tensor.nbytes:,} bytes")
        at = tensor.offset + tensor.nbytes
    return Header(tuple(tensors), at, tuple(problems))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoHeader("a name stands twice")
    return found


def _tensor(name: str, entry: Any, begin: int) -> HeaderTensor:
    dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, first, last)
    if type(dtype) is not str or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise NoHeader(f"{name} is described as {str(entry)[:200]}")
    if last < first:
        raise NoHeader(f"{name} ends before it begins")
    return HeaderTensor(name, dtype, shape, begin + first, last - first)
