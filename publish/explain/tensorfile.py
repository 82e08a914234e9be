"""Safetensors files of a location, on disk or on a Hub: what the headers claim, checked, and rows read by position.

Format: https://huggingface.co/docs/safetensors: a length (8 bytes, little endian), a JSON header, the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.dtypes import SAFETENSORS, VIEWS
from publish.errors import CheckpointError
from publish.source.files import CheckpointFile, CheckpointFiles

_DTYPES = {spelt: dtype for dtype, spelt in SAFETENSORS.items()}
_MAX_HEADER = 100_000_000  # safetensors' own limit
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
    length = int.from_bytes(bytes(file.read(0, 8)), "little") if file.size >= 8 else 0
    if not 2 <= length <= min(_MAX_HEADER, file.size - 8):
        raise _broken(file, f"a header of {length:,} bytes is claimed in a file of {file.size:,}")
    try:
        entries = json.loads(bytes(file.read(8, length)))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            dtype = _DTYPES.get(entry["dtype"])
            shape, (first, last) = tuple(entry["shape"]), entry["data_offsets"]
            if not all(type(number) is int and 0 <= number < 2**62 for number in (*shape, first, last)):
                raise ValueError(f"{name} has an impossible place")
            if dtype is None:
                continue
            if last - first != math.prod(shape) * VIEWS[dtype].itemsize or 8 + length + last > file.size:
                raise ValueError(f"{name} does not fit its bytes")
            yield FileTensor(name, file, dtype, shape, 8 + length + first)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(file, f"the header cannot be read: {error}") from error


def _broken(file: CheckpointFile, what: str) -> CheckpointError:
    return CheckpointError(what, file.where, "the file is damaged; fetch it again")
