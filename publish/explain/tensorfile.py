"""Safetensors files of a location, on disk or on a Hub: their tensors, and rows of those read by position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.dtypes import SAFETENSORS, VIEWS
from publish.errors import CheckpointError
from publish.source.files import CheckpointFile, CheckpointFiles
from publish.source.safetensors import NoHeader, read_header

_DTYPES = {spelt: dtype for dtype, spelt in SAFETENSORS.items()}
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A tensor of ``file``, contiguous, its bytes from ``offset``."""

    name: str
    file: CheckpointFile
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def rows(self, start: int, count: int) -> NDArray[Any]:
        """Rows as they are stored (bfloat16 as uint16), shape (count, ...)."""
        kind = VIEWS[self.dtype]
        row = math.prod(self.shape[1:]) * kind.itemsize
        data = self.file.read(self.offset + start * row, count * row)
        return np.frombuffer(data, kind).reshape(count, *self.shape[1:])


def has_tensor_files(names: Mapping[str, int]) -> bool:
    """Whether there are weights in Hugging Face format."""
    return any(name.endswith(_SUFFIX) and "/" not in name for name in names)


def file_tensors(files: CheckpointFiles) -> dict[str, FileTensor]:
    """Every tensor of a known dtype in the safetensors files at the root; the others are left out.

    Raises:
        CheckpointError: a header that is not true of its file, or one name in two files.
    """
    found: dict[str, FileTensor] = {}
    for name in sorted(files.sizes):
        if name.endswith(_SUFFIX) and "/" not in name:
            for tensor in _header(files.open(name)):
                if tensor.name in found:
                    raise _broken(tensor.file, f"{tensor.name} is in {found[tensor.name].file.where} too")
                found[tensor.name] = tensor
    return found


def _header(file: CheckpointFile) -> Iterator[FileTensor]:
    try:
        places = read_header(file.size, file.read).tensors
    except NoHeader as error:
        raise _broken(file, str(error)) from error
    for place in places:
        if (dtype := _DTYPES.get(place.dtype)) is not None:
            yield FileTensor(place.name, file, dtype, place.shape, place.offset)


def _broken(file: CheckpointFile, what: str) -> CheckpointError:
    return CheckpointError(what, file.where, "the file is damaged; fetch it again")
