"""Safetensors files that we wrote, read back by code of our own: stricter than what reads anybody's."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

from publish.dtypes import BY_SAFETENSORS, DTYPES, WEIGHT_DTYPES
from publish.errors import GateError

# What a safetensors header claims of its file, wherever that lies.


PREFIX = 8  # bytes of the length
LARGEST = 100_000_000  # safetensors' own limit for a header


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
        dtype = BY_SAFETENSORS.get(tensor.dtype)
        size = tensor.nbytes if dtype is None else -(-math.prod(tensor.shape) * dtype.bits // 8)
        if size != tensor.nbytes:
            expected = f"{tensor.dtype} {list(tensor.shape)}, {size:,} bytes"
            problems.append(f"{tensor.name} is {expected}, and has {tensor.nbytes:,}")
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


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """``*.index.json``: ``files`` maps each tensor to its file; ``total_size``: bytes of all tensors, if it says so."""

    files: Mapping[str, str]
    total_size: int | None


def parse_index(content: bytes) -> ShardIndex:
    """The index whose JSON is ``content``.

    Raises:
        ValueError: not a JSON object, or it maps no tensor to a file.
    """
    try:
        document = json.loads(content)
        files = document["weight_map"]
        metadata = document.get("metadata", {})
        if not isinstance(files, dict) or not files or not all(type(file) is str for file in files.values()):
            raise ValueError("weight_map does not map tensors to files")
        total = metadata.get("total_size")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a JSON object with a weight_map") from error
    return ShardIndex(files, total if type(total) is int else None)


WEIGHTS = tuple(DTYPES[name].safetensors for name in WEIGHT_DTYPES)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """A tensor in a weight file: ``offset`` from the file's start, ``dtype`` as safetensors spells it."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in order, at most `CHUNK` at a time; each is valid until the next.

        Raises:
            GateError: the file is shorter than its header says, or cannot be read.
        """
        buffer = memoryview(bytearray(min(CHUNK, self.nbytes)))
        with _opened(self.path) as file:
            yield from self.read(file, buffer)

    def read(self, file: FileIO, buffer: memoryview) -> Iterator[memoryview]:
        """As `chunks`, of a file that is open, as much at a time as ``buffer`` holds."""
        file.seek(self.offset)
        left = self.nbytes
        while left:
            got = file.readinto(buffer[:left])
            if not got:
                raise _error(f"the file ends inside {self.name}", self.path)
            left -= got
            yield buffer[:got]


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """All tensors of a converted folder, by name; ``sizes`` are those of the weight files."""

    folder: Path
    tensors: Mapping[str, WrittenTensor]
    sizes: Mapping[str, int]

    @classmethod
    def open(cls, folder: Path) -> WeightFolder:
        """Read every header, and the index where there is one.

        Raises:
            GateError: no weights, a header that is not true of its file, an index that is not true of the headers.
        """
        index = folder / INDEX
        places = _index(index) if index.exists() else None
        files = [SINGLE] if places is None else sorted(set(places.values()))
        tensors: dict[str, WrittenTensor] = {}
        for name in files:
            for tensor in read_tensors(folder / name):
                if tensor.name in tensors:
                    raise _error(f"{tensor.name} is in {tensors[tensor.name].path.name} too", tensor.path)
                tensors[tensor.name] = tensor
        if surplus := sorted({path.name for path in folder.glob("*.safetensors")} - set(files)):
            raise _error(f"{surplus[0]} belongs to no index", folder)
        if places is not None:
            for name in sorted(tensors.keys() | places.keys()):
                actual = tensors[name].path.name if name in tensors else "no file"
                if places.get(name) != actual:
                    raise _error(f"the index has {name} in {places.get(name, 'no file')}, it is in {actual}", index)
        return cls(folder, tensors, {name: (folder / name).stat().st_size for name in files})


def opened(place: Path | WeightFolder) -> WeightFolder:
    """The folder at ``place``, where it is not open yet.

    Raises:
        GateError: as `WeightFolder.open` does.
    """
    return place if isinstance(place, WeightFolder) else WeightFolder.open(place)


def chunks_of(tensors: Iterable[WrittenTensor], size: int) -> Iterator[tuple[WrittenTensor, memoryview]]:
    """The bytes of ``tensors``, at most ``size`` at a time, every file opened once; each is valid until the next.

    Raises:
        GateError: a file is shorter than its header says, or cannot be read.
    """
    buffer = memoryview(bytearray(size))
    for path, of_file in groupby(sorted(tensors, key=lambda each: (each.path, each.offset)), lambda each: each.path):
        with _opened(path) as file:
            for tensor in of_file:
                yield from ((tensor, chunk) for chunk in tensor.read(file, buffer))


def read_tensors(path: Path) -> tuple[WrittenTensor, ...]:
    """The tensors of one file in file order; their bytes fill the rest of it without gap or overlap.

    Raises:
        GateError: says which claim is not true, with the numbers.
    """
    with _opened(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            header = read_header(size, lambda offset, length: os.pread(file.fileno(), length, offset))
        except NoHeader as error:
            raise _error(str(error), path) from error
    if header.metadata.get("format") != "pt":
        raise _error(f"the metadata is {dict(header.metadata)!r}, and transformers wants format: pt", path)
    for each in header.tensors:
        if each.dtype not in WEIGHTS:
            raise _error(f"{each.name} is {each.dtype}, which is none of {', '.join(WEIGHTS)}", path)
    return tuple(
        WrittenTensor(each.name, path, each.dtype, each.shape, each.offset, each.nbytes) for each in header.tensors
    )


def _index(path: Path) -> Mapping[str, str]:
    try:
        files = parse_index(path.read_bytes()).files
    except (OSError, ValueError) as error:
        raise _error(f"the index cannot be read: {error}", path) from error
    if odd := [file for file in files.values() if Path(file).name != file]:
        raise _error(f"the index names {odd[0]!r}, which is not a file name", path)
    return files


def _opened(path: Path) -> FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise _error(f"cannot read: {error.strerror}", path) from error


def _error(what: str, where: object) -> GateError:
    return GateError(what, where, "the file is not what was written; convert the step again")
