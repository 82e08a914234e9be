"""The weight files of a converted folder, read back: stricter than what reads anybody's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from pathlib import Path

from publish.dtypes import DTYPES, WEIGHT_DTYPES
from publish.errors import CheckpointError, GateError
from publish.formats.safetensors import parse_index, read_header
from publish.sources.files import ByteCount, LocalFile

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
    try:
        file = LocalFile(path, path.stat().st_size, ByteCount())
        header = read_header(file)
        file.close()
    except OSError as error:
        raise _error(f"cannot read: {error.strerror}", path) from error
    except CheckpointError as error:
        raise _error(error.what, path) from error
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
