"""One torch file: its pickled tree, and where each of its tensors lies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from publish.errors import CheckpointError
from publish.neox.archive import Archive
from publish.neox.inert import StoredTensor
from publish.neox.unpickle import MAX_PICKLE, unpickle
from publish.source.files import CheckpointFile

PADDING = 64 << 10  # bytes of a storage that no tensor needs, and that are read so that its checksum can be compared
_HEADER = 512  # bytes that a local header takes at most: a name, and padding to 64
ITEM_SIZES = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor in a file: ``offset`` is the byte position of element 0, ``stride`` counts elements.

    ``crc`` is the CRC-32 of its whole storage, as the archive's directory states it; the storage is ``storage_bytes``
    at ``storage_at``.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    crc: int = 0
    storage_at: int = 0
    storage_bytes: int = 0

    @property
    def itemsize(self) -> int:
        return ITEM_SIZES[self.dtype]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.itemsize

    @property
    def span(self) -> int:
        """Bytes from element 0 to the end of the last one."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return (1 + sum((size - 1) * step for size, step in steps)) * self.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another in row-major order."""
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return False
            expected *= size
        return True


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A torch zip archive whose pickle was read into inert objects."""

    name: str
    archive: Archive
    tree: Any

    @classmethod
    def open(cls, name: str, file: CheckpointFile) -> TorchFile:
        """Read the index and the pickle of ``file``; no storage is touched.

        Raises:
            CheckpointError: no torch archive, big-endian, or a pickle that torch did not write.
        """
        archive = Archive.open(file)
        if "byteorder" in archive.members and archive.read("byteorder", 16) != b"little":
            raise CheckpointError("the archive is not little-endian", file.where, "save it again on a usual machine")
        return cls(name, archive, unpickle(archive.read("data.pkl", MAX_PICKLE), file.where))

    def tensor(self, name: str, stored: StoredTensor) -> RawTensor:
        """Where ``stored`` lies.

        Raises:
            CheckpointError: its storage is absent or of another size than the pickle says.
        """
        storage = stored.storage
        itemsize = ITEM_SIZES[storage.dtype]
        member = self.archive.members.get(f"data/{storage.key}")
        if member is None or member.size != storage.count * itemsize:
            found = "absent" if member is None else f"{member.size:,} bytes"
            raise CheckpointError(
                f"storage {storage.key} of {name!r} should be {storage.count * itemsize:,} bytes and is {found}",
                self.archive.file.where,
                "the file is damaged; fetch it again",
            )
        start = self.archive.data_offset(member)
        offset = start + stored.offset * itemsize
        place = (member.crc, start, member.size)
        return RawTensor(name, self.name, storage.dtype, stored.shape, stored.stride, offset, *place)

    def spans(self, tensors: Iterable[StoredTensor]) -> list[tuple[int, int]]:
        """``(offset, length)`` of what has to be read for ``tensors``, as far as the directory tells.

        A storage with its header where they take all of it but padding; else its header alone.
        """
        taken: dict[str, int] = {}
        for stored in tensors:
            storage = stored.storage
            taken[storage.key] = taken.get(storage.key, 0) + math.prod(stored.shape) * ITEM_SIZES[storage.dtype]
        ranges = []
        for key, size in taken.items():
            if (member := self.archive.members.get(f"data/{key}")) is not None:
                length = _HEADER + (member.size if member.size - size <= PADDING else 0)
                ranges.append((member.header, min(length, self.archive.file.size - member.header)))
        return ranges

    def bytes_of(self, stored: StoredTensor, limit: int = 1 << 20) -> bytes:
        """The bytes of a small contiguous tensor, such as a generator's state."""
        tensor = self.tensor("state", stored)
        if not tensor.contiguous or tensor.nbytes > limit:
            raise CheckpointError("a state tensor of unexpected form", self.archive.file.where, "fetch the file again")
        return bytes(self.archive.file.read(tensor.offset, tensor.nbytes))
