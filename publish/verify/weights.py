"""The weight files of a converted folder, read back. More is refused than in files that others wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from publish.dtypes import DTYPES, WEIGHT_DTYPES
from publish.errors import CheckpointError, GateError
from publish.formats.safetensors import parse_index, read_header
from publish.sources.files import ByteCount, LocalFile

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHUNK = 4 << 20  # bytes that are read at a time


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """A tensor in the weight file ``path``; ``offset`` and ``nbytes`` are in bytes from the start of the file."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in order, at most `CHUNK` at a time; a chunk is valid until the next one is read.

        Raises:
            GateError: the file is shorter than its header says, or cannot be read.
        """
        buffer = memoryview(bytearray(min(CHUNK, self.nbytes)))
        with _opened(self.path) as file:
            yield from self.read(file, buffer)

    def read(self, file: FileIO, buffer: memoryview) -> Iterator[memoryview]:
        """The bytes in order from the open ``file``, as much at a time as ``buffer`` holds."""
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
            GateError: there are no weights, a header does not match its file, or the index does not match the headers.
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
            raise _error(f"{surplus[0]} is not in the index", folder)
        if places is not None:
            for name in sorted(tensors.keys() | places.keys()):
                actual = tensors[name].path.name if name in tensors else "no file"
                if places.get(name) != actual:
                    raise _error(f"the index has {name} in {places.get(name, 'no file')}, it is in {actual}", index)
        return cls(folder, tensors, {name: (folder / name).stat().st_size for name in files})


def open_weights(folder: Path | WeightFolder) -> WeightFolder:
    """Open ``folder`` unless it is open.

    Raises:
        GateError: as :meth:`WeightFolder.open` does.
    """
    return folder if isinstance(folder, WeightFolder) else WeightFolder.open(folder)


def read_chunks(tensors: Iterable[WrittenTensor], size: int) -> Iterator[tuple[WrittenTensor, memoryview]]:
    """The bytes of ``tensors``, at most ``size`` at a time, every file opened once; a chunk is valid until the next.

    Raises:
        GateError: a file is shorter than its header says, or cannot be read.
    """
    buffer = memoryview(bytearray(size))
    for path, of_file in groupby(sorted(tensors, key=attrgetter("path", "offset")), attrgetter("path")):
        with _opened(path) as file:
            for tensor in of_file:
                yield from ((tensor, chunk) for chunk in tensor.read(file, buffer))


def read_tensors(path: Path) -> tuple[WrittenTensor, ...]:
    """The tensors of one file in file order; their bytes fill the rest of it without gap or overlap.

    Raises:
        GateError: the header does not match the file; names the tensor and the numbers.
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
        raise _error(f"the metadata is {dict(header.metadata)!r}, but transformers needs format: pt", path)
    dtypes = {DTYPES[name].safetensors: name for name in WEIGHT_DTYPES}
    for tensor in header.tensors:
        if tensor.dtype not in dtypes:
            raise _error(f"{tensor.name} is {tensor.dtype}, not one of {', '.join(dtypes)}", path)
    return tuple(
        WrittenTensor(tensor.name, path, dtypes[tensor.dtype], tensor.shape, tensor.offset, tensor.nbytes)
        for tensor in header.tensors
    )


def _index(path: Path) -> Mapping[str, str]:
    try:
        files = parse_index(path.read_bytes()).files
    except (OSError, ValueError) as error:
        raise _error(f"the index cannot be read: {error}", path) from error
    if bad := [file for file in files.values() if Path(file).name != file]:
        raise _error(f"the index names {bad[0]!r}, which is not a file name", path)
    return files


def _opened(path: Path) -> FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise _error(f"cannot read: {error.strerror}", path) from error


def _error(what: str, where: object) -> GateError:
    return GateError(what, where, "the file was changed after it was written; convert the step again")
