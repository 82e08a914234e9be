"""What a safetensors header claims of its file, wherever that lies.

Format: https://huggingface.co/docs/safetensors: a length (8 bytes, little endian), a JSON header, the tensors' bytes.
Published files may be anybody's, so every dtype is let in, and what is not true of the file is kept to be told.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import SourceError
from publish.source.files import CheckpointFile

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
    """A tensor: ``offset`` from the file's start, both in bytes; ``dtype`` as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's header, its tensors in file order. ``problems``: claims that contradict each other.

    ``end``: where the last tensor ends. A file that ends inside its header has ``tensors`` empty and says so in
    ``problems``.
    """

    tensors: tuple[HeaderTensor, ...]
    end: int
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
        metadata = entries.pop("__metadata__", {})
        begin = PREFIX + len(text)
        tensors = [_tensor(name, entry, begin) for name, entry in entries.items()]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise error if isinstance(error, NoHeader) else NoHeader(f"the header is no JSON: {error}") from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    problems = []
    at = begin
    for tensor in tensors:
        if tensor.offset != at:
            kind = "overlaps the tensor before it" if tensor.offset < at else "leaves a gap before it"
            problems.append(f"{tensor.name} begins at byte {tensor.offset:,}, not {at:,}: it {kind}")
        bits = math.prod(tensor.shape) * BITS.get(tensor.dtype, 0)
        if tensor.dtype in BITS and -(-bits // 8) != tensor.nbytes:
            due = f"{tensor.dtype} {list(tensor.shape)}, {-(-bits // 8):,} bytes"
            problems.append(f"{tensor.name} is {due}, and has {tensor.nbytes:,}")
        at = tensor.offset + tensor.nbytes
    return Header(tuple(tensors), at, tuple(problems), metadata if isinstance(metadata, dict) else {})


def read_header(size: int, read: Callable[[int, int], bytes | memoryview]) -> Header:
    """The header of a file of ``size`` bytes, of which ``read(offset, length)`` gives some, true of the file.

    Raises:
        NoHeader: it is none, or not true of the file: says which claim, with the numbers. Whatever ``read`` raises.
    """
    if size < PREFIX:
        raise NoHeader(f"a file of {size:,} bytes has no header")
    length = length_of(bytes(read(0, PREFIX)))
    header = parse_header(bytes(read(PREFIX, length))) if PREFIX + length <= size else cut_short(length, size)
    if header.problems:
        raise NoHeader(header.problems[0])
    if header.end != size:
        raise NoHeader(f"the header accounts for {header.end:,} bytes and the file has {size:,}")
    return header


def read_places(file: CheckpointFile) -> tuple[HeaderTensor, ...]:
    """The tensors of ``file`` in file order; they fill it without gap or overlap.

    Raises:
        SourceError: says which claim is not true, with the numbers.
    """
    try:
        return read_header(file.size, file.read).tensors
    except NoHeader as error:
        raise SourceError(str(error), file.where, "the file is damaged or incomplete; fetch it again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoHeader("a name stands twice in the header")
    return found


def _tensor(name: str, entry: Any, begin: int) -> HeaderTensor:
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, first, last)
        if type(dtype) is not str or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            raise ValueError("of other types")
    except (TypeError, KeyError, ValueError) as error:
        raise NoHeader(f"{name}: {str(entry)[:200]} describes no tensor") from error
    if last < first:
        raise NoHeader(f"{name} ends before it begins")
    return HeaderTensor(name, dtype, shape, begin + first, last - first)
