"""Safetensors files: the header, which says where the tensors are, and the index of a model in several files.

A file is an 8-byte length (little endian), a JSON header of that length, and the bytes of the tensors, which fill the
rest of the file without gap or overlap.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.dtypes import BY_SAFETENSORS
from publish.errors import CheckpointError
from publish.sources.files import CheckpointFile

PREFIX = 8  # bytes of the length
MAX_HEADER = 100_000_000  # safetensors' own limit


class InvalidHeader(ValueError):
    """The bytes are not a safetensors header, or its claims are not true of the file."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as a header has it: ``dtype`` as safetensors names it, ``offset`` in bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: its tensors in file order, and where the last one ends.

    ``problems``: claims that contradict each other. The header of a file that ends inside it has no tensors, and that
    as a problem.
    """

    tensors: tuple[TensorInfo, ...]
    end: int
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def begin(self) -> int:
        """Where the first tensor begins, and the header ends."""
        return min((tensor.offset for tensor in self.tensors), default=PREFIX)

    @property
    def data_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def header_length(prefix: bytes) -> int:
    """The length of the header in bytes, from the first 8 bytes of the file.

    Raises:
        InvalidHeader: longer than a header may be: the file is not a safetensors file.
    """
    length: int = struct.unpack("<Q", prefix)[0]
    if not 2 <= length <= MAX_HEADER:
        raise InvalidHeader(f"the file claims a header of {length:,} bytes")
    return length


def truncated_header(length: int, size: int) -> Header:
    """The header, of ``length`` bytes, of a file of ``size`` bytes that ends inside it."""
    return Header((), PREFIX + length, (f"the file claims a header of {length:,} bytes and has {size:,} bytes",))


def parse_header(text: bytes) -> Header:
    """The header whose JSON is ``text``.

    Raises:
        InvalidHeader: not a JSON object of tensors.
    """
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(entries, dict):
            raise InvalidHeader("the header is not a JSON object")
        metadata = entries.pop("__metadata__", {})
        begin = PREFIX + len(text)
        tensors = [_tensor_info(name, entry, begin) for name, entry in entries.items()]
    except InvalidHeader:
        raise
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InvalidHeader(f"the header is not JSON: {error}") from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    problems = []
    at = begin
    for tensor in tensors:
        if tensor.offset != at:
            kind = "overlaps the tensor before it" if tensor.offset < at else "leaves a gap before it"
            problems.append(f"{tensor.name} begins at byte {tensor.offset:,}, not {at:,}: it {kind}")
        dtype = BY_SAFETENSORS.get(tensor.dtype)
        size = tensor.nbytes if dtype is None else -(-math.prod(tensor.shape) * dtype.bits // 8)
        if size != tensor.nbytes:
            expected = f"{tensor.dtype} {list(tensor.shape)}, {size:,} bytes"
            problems.append(f"{tensor.name} is {expected}, and has {tensor.nbytes:,}")
        at = tensor.offset + tensor.nbytes
    return Header(tuple(tensors), at, tuple(problems), metadata if isinstance(metadata, dict) else {})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidHeader("the header has a name twice")
    return found


def _tensor_info(name: str, entry: Any, begin: int) -> TensorInfo:
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, first, last)
        if type(dtype) is not str or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            raise ValueError("values of other types")
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidHeader(f"{name}: {str(entry)[:200]} does not describe a tensor") from error
    if last < first:
        raise InvalidHeader(f"{name} ends before it begins")
    return TensorInfo(name, dtype, shape, begin + first, last - first)


def read_header(file: CheckpointFile) -> Header:
    """The header of ``file``, all of whose claims are true: its tensors fill the file without gap or overlap.

    Raises:
        CheckpointError: the first claim that is not true, with the numbers.
    """
    try:
        if file.size < PREFIX:
            raise InvalidHeader(f"a file of {file.size:,} bytes has no header")
        length = header_length(bytes(file.read(0, PREFIX)))
        if PREFIX + length > file.size:
            header = truncated_header(length, file.size)
        else:
            header = parse_header(bytes(file.read(PREFIX, length)))
        if header.problems:
            raise InvalidHeader(header.problems[0])
        if header.end != file.size:
            raise InvalidHeader(f"the header accounts for {header.end:,} bytes, and the file has {file.size:,}")
    except InvalidHeader as error:
        raise CheckpointError(str(error), file.where, "the file is damaged or incomplete; fetch it again") from error
    return header


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """``*.index.json``: tensor name -> file; and the bytes of all tensors, if it states them."""

    files: Mapping[str, str]
    total_size: int | None


def parse_index(content: bytes) -> ShardIndex:
    """The index whose JSON is ``content``.

    Raises:
        ValueError: not a JSON object, or its ``weight_map`` does not map tensors to files.
    """
    try:
        document = json.loads(content)
        files, metadata = document["weight_map"], document.get("metadata", {})
        if not isinstance(files, dict) or not files or not all(type(file) is str for file in files.values()):
            raise ValueError("its weight_map does not map tensors to files")
        total = metadata.get("total_size")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is not a JSON object with a weight_map") from error
    return ShardIndex(files, total if type(total) is int else None)
