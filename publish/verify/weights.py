"""The weight files of a converted folder, read back. More is refused than in files that others wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from publish.dtypes import WEIGHT_DTYPES
from publish.errors import GateError, PublishError
from publish.formats.safetensors import parse_index, read_header
from publish.formats.torch_archive import RawTensor
from publish.hf.checkpoint import HfCheckpoint, index_of, weight_files
from publish.sources.files import LocalFiles

CHUNK = 4 << 20  # bytes that are read at a time

_INDEX = index_of("model.safetensors")


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """All tensors of a converted folder, by name; ``sizes`` are those of the weight files."""

    folder: Path
    tensors: Mapping[str, RawTensor]
    sizes: Mapping[str, int]

    @classmethod
    def open(cls, folder: Path) -> WeightFolder:
        """Read every header, and the index where there are several files.

        Raises:
            GateError: there are no weights, a header does not match its file, or the index does not match the headers.
        """
        files = LocalFiles(folder)
        try:
            tensors = HfCheckpoint.open(files).tensors
            names = weight_files(files)
            for name in names:
                metadata = read_header(files.open(name)).metadata
                if metadata.get("format") != "pt":
                    what = f"the metadata is {dict(metadata)!r}, but transformers needs format: pt"
                    raise _error(what, folder / name)
            if len(names) > 1:
                _check_index(files, tensors)
        except PublishError as error:
            raise _error(error.what, error.where) from error
        finally:
            files.close()
        for tensor in tensors.values():
            if tensor.dtype not in WEIGHT_DTYPES:
                what = f"{tensor.name} is {tensor.dtype}, not one of {', '.join(WEIGHT_DTYPES)}"
                raise _error(what, folder / tensor.file)
        if surplus := sorted({path.name for path in folder.glob("*.safetensors")} - set(names)):
            raise _error(f"{surplus[0]} is not in the index", folder)
        return cls(folder, tensors, {name: files.sizes[name] for name in names})

    def chunks(self, tensors: Iterable[RawTensor], size: int = CHUNK) -> Iterator[tuple[RawTensor, memoryview]]:
        """The bytes of ``tensors``, at most ``size`` at a time, every file opened once.

        A chunk is valid until the next one is read.

        Raises:
            GateError: a file is shorter than its header says, or cannot be read.
        """
        buffer = memoryview(bytearray(size))
        for name, of_file in groupby(sorted(tensors, key=attrgetter("file", "offset")), attrgetter("file")):
            path = self.folder / name
            try:
                with path.open("rb", buffering=0) as file:
                    for tensor in of_file:
                        file.seek(tensor.offset)
                        left = tensor.nbytes
                        while left:
                            got = file.readinto(buffer[:left])
                            if not got:
                                raise _error(f"the file ends inside {tensor.name}", path)
                            left -= got
                            yield tensor, buffer[:got]
            except OSError as error:
                raise _error(f"cannot read: {error.strerror}", path) from error


def open_weights(folder: Path | WeightFolder) -> WeightFolder:
    """Open ``folder`` unless it is open.

    Raises:
        GateError: as :meth:`WeightFolder.open` does.
    """
    return folder if isinstance(folder, WeightFolder) else WeightFolder.open(folder)


def _check_index(files: LocalFiles, tensors: Mapping[str, RawTensor]) -> None:
    where = files.folder / _INDEX
    if _INDEX not in files.sizes:
        raise _error("the index is missing", where)
    try:
        index = parse_index(bytes(files.open(_INDEX).read(0, files.sizes[_INDEX]))).files
    except ValueError as error:
        raise _error(f"the index cannot be read: {error}", where) from error
    for name in sorted(tensors.keys() | index.keys()):
        actual = tensors[name].file if name in tensors else "no file"
        if index.get(name) != actual:
            raise _error(f"the index has {name} in {index.get(name, 'no file')}, it is in {actual}", where)


def _error(what: str, where: object) -> GateError:
    return GateError(what, where, "the file was changed after it was written; convert the step again")
