"""The header of a safetensors file, wherever it lies: what it claims, checked against the file's size.

Format: https://huggingface.co/docs/safetensors: a length (8 bytes, little endian), a JSON header, the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publish.errors import SourceError
from publish.source.files import CheckpointFile

ITEM_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
MAX_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """A tensor of a file: ``offset`` from the file's start, ``dtype`` as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_places(file: CheckpointFile) -> tuple[StoredPlace, ...]:
    """The tensors of ``file`` in file order; they fill it without gap or overlap.

    Raises:
        SourceError: says which claim is not true, with the numbers.
    """
    length = struct.unpack("<Q", bytes(file.read(0, 8)))[0] if file.size >= 8 else 0
    if not 2 <= length <= min(MAX_HEADER, file.size - 8):
        raise _error(f"a header of {length:,} bytes is claimed in a file of {file.size:,}", file)
    begin = at = 8 + length
    entries = _entries(bytes(file.read(8, length)), file)
    places = sorted(
        (_place(name, entry, begin, file) for name, entry in entries.items()), key=lambda p: (p.offset, p.nbytes)
    )
    for place in places:
        if place.offset != at:
            raise _error(f"{place.name} begins at byte {place.offset:,}, not {at:,}", file)
        at += place.nbytes
    if at != file.size:
        raise _error(f"the header accounts for {at:,} bytes and the file has {file.size:,}", file)
    return tuple(places)


def _entries(text: bytes, file: CheckpointFile) -> dict[str, Any]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(f"the header is no JSON: {error}", file) from error
    if not isinstance(entries, dict):
        raise _error("the header is no JSON object", file)
    entries.pop("__metadata__", None)
    return entries


def _place(name: str, entry: Any, begin: int, file: CheckpointFile) -> StoredPlace:
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError("no sizes")
        nbytes = math.prod(shape) * ITEM_SIZES[dtype]
    except (TypeError, KeyError, ValueError) as error:
        raise _error(f"{name}: {str(entry)[:200]} describes no tensor", file) from error
    if last - first != nbytes:
        raise _error(f"{name} is {dtype} {list(shape)}, {nbytes:,} bytes, and has {last - first:,}", file)
    return StoredPlace(name, dtype, shape, begin + first, nbytes)


def _error(what: str, file: CheckpointFile) -> SourceError:
    return SourceError(what, file.where, "the file is damaged or incomplete; fetch it again")
