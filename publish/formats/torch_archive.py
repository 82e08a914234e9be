"""Torch files (``torch.save``, torch >= 1.6): what they hold, and where the bytes of their tensors are.

Such a file is a zip archive whose members are stored, not compressed: a pickle, and a storage for every tensor.
"""

from __future__ import annotations

import encodings.cp437  # noqa: F401  zipfile decodes names with it; loaded here, so that no file causes an import
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.dtypes import DTYPES
from publish.errors import CheckpointError
from publish.formats.unpickler import MAX_PICKLE, StoredTensor, unpickle
from publish.sources.files import CheckpointFile

PADDING = 64 << 10  # bytes of a storage that no tensor needs, and that are read so that its checksum can be compared

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 8 << 20  # bytes; a storage takes about 100, and the largest checkpoints have some thousands
_TAIL = 1 << 16  # bytes read at the end of a file: they usually have the whole central directory
_MAX_HEADER = 512  # bytes that a local header takes at most: a name, and padding to 64


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: ``size`` bytes after the local header at ``header``."""

    name: str
    header: int
    size: int
    crc: int


class Window(io.RawIOBase):
    """A :class:`CheckpointFile` as `zipfile` wants it; its end is read once.

    zipfile reads the central directory in small pieces: over a network, every piece would be a request.
    """

    def __init__(self, file: CheckpointFile) -> None:
        super().__init__()
        self._file = file
        self._tail_at = max(0, file.size - _TAIL)
        self._tail = bytes(file.read(self._tail_at, file.size - self._tail_at))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the file")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        size = left if size < 0 else min(size, left)
        if size > _MAX_DIRECTORY:
            raise OSError(f"a directory of {size:,} bytes")
        if self._at >= self._tail_at:
            start = self._at - self._tail_at
            data = self._tail[start : start + size]
        else:
            data = bytes(self._file.read(self._at, size))
        self._at += len(data)
        return data


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of a torch file by name, without the root folder. They lie inside the file and do not overlap."""

    file: CheckpointFile
    members: Mapping[str, Member]

    @classmethod
    def open(cls, file: CheckpointFile) -> Archive:
        """Read the central directory.

        Raises:
            CheckpointError: not a zip archive, truncated; or members are compressed, duplicated or overlap.
        """
        try:
            with zipfile.ZipFile(Window(file)) as archive:
                infos = archive.infolist()
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
            IndexError,
        ) as error:
            raise CheckpointError(
                f"not a torch zip archive: {error}",
                file.where,
                "the file is truncated, or was not written by torch >= 1.6; fetch it again",
            ) from error
        return cls(file, dict(_checked(file, infos)))

    def data_offset(self, member: Member) -> int:
        """Where the bytes of ``member`` begin: after its local header, which states its own length."""
        header = bytes(self.file.read(member.header, _LOCAL_HEADER.size))
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise _refused(self.file, f"member {member.name!r} has no local header at byte {member.header}")
        fields = _LOCAL_HEADER.unpack(header)
        offset = member.header + _LOCAL_HEADER.size + int(fields[-2]) + int(fields[-1])
        if offset + member.size > self.file.size:
            raise _refused(self.file, f"member {member.name!r} ends past the end of the file")
        return offset

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a member.

        Raises:
            CheckpointError: there is no such member, it has more than ``limit`` bytes, or its checksum is wrong.
        """
        member = self.members.get(name)
        if member is None:
            raise _refused(self.file, f"no member {name!r}")
        if member.size > limit:
            raise _refused(self.file, f"member {name!r} has {member.size:,} bytes, more than {limit:,}")
        content = bytes(self.file.read(self.data_offset(member), member.size))
        if member.crc not in (0, zlib.crc32(content)):  # 0: torch was configured to write none
            raise _refused(self.file, f"member {name!r} does not match its checksum")
        return content


def _refused(file: CheckpointFile, what: str) -> CheckpointError:
    return CheckpointError(
        f"broken torch archive: {what}",
        file.where,
        "the file is damaged or hostile; fetch it again",
    )


def _checked(file: CheckpointFile, infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, Member]]:
    roots = {info.filename.split("/", 1)[0] for info in infos}
    if len(roots) != 1:
        raise _refused(file, f"it has {len(roots)} root folders, and torch writes one")
    seen: set[str] = set()
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.filename.split("/", 1)[1] if "/" in info.filename else info.filename
        if name in seen:
            raise _refused(file, f"member {name!r} occurs twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _refused(file, f"member {name!r} is compressed, which torch never does")
        if info.header_offset < end:
            raise _refused(file, f"member {name!r} overlaps the one before it")
        end = info.header_offset + _LOCAL_HEADER.size + info.file_size
        if end > file.size:
            raise _refused(file, f"member {name!r} ends past the end of the file")
        seen.add(name)
        yield name, Member(name, info.header_offset, info.file_size, info.CRC)


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor in a file: ``dtype`` as torch names it, ``offset`` of element 0 in bytes, ``stride`` in elements.

    ``crc`` is the CRC-32 of its whole storage, ``storage_bytes`` at ``storage_at``, as the archive's directory states
    it; 0 if it is not known.
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
        return DTYPES[self.dtype].itemsize

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
        """Whether the elements follow one another in row-major order."""
        expected = 1
        for size, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and step != expected:
                return False
            expected *= size
        return True


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A torch file and its unpickled ``tree``, whose tensors are :class:`StoredTensor`. Nothing was executed."""

    name: str
    archive: Archive
    tree: Any

    @classmethod
    def open(cls, name: str, file: CheckpointFile) -> TorchFile:
        """Read the directory and the pickle of ``file``, and no storage.

        Raises:
            CheckpointError: not a torch archive, big-endian, or a pickle that torch did not write.
        """
        archive = Archive.open(file)
        if "byteorder" in archive.members and archive.read("byteorder", 16) != b"little":
            raise CheckpointError("the archive is big-endian", file.where, "save it on a little-endian machine")
        return cls(name, archive, unpickle(archive.read("data.pkl", MAX_PICKLE), file.where))

    def tensor(self, name: str, stored: StoredTensor) -> RawTensor:
        """Where ``stored`` is.

        Raises:
            CheckpointError: its storage is absent, or has another size than the pickle says.
        """
        storage = stored.storage
        itemsize = DTYPES[storage.dtype].itemsize
        member = self.archive.members.get(f"data/{storage.key}")
        if member is None or member.size != storage.count * itemsize:
            found = "is absent" if member is None else f"has {member.size:,}"
            raise CheckpointError(
                f"storage {storage.key} of {name!r} should have {storage.count * itemsize:,} bytes, and {found}",
                self.archive.file.where,
                "the file is damaged; fetch it again",
            )
        start = self.archive.data_offset(member)
        offset = start + stored.offset * itemsize
        place = (member.crc, start, member.size)
        return RawTensor(name, self.name, storage.dtype, stored.shape, stored.stride, offset, *place)

    def spans(self, tensors: Iterable[StoredTensor]) -> list[tuple[int, int]]:
        """The ``(offset, length)`` ranges to read for ``tensors``, as far as the directory tells.

        A storage that ``tensors`` take whole, apart from padding, is read whole; of others the local header is read.
        """
        taken: dict[str, int] = {}
        for stored in tensors:
            storage = stored.storage
            taken[storage.key] = taken.get(storage.key, 0) + math.prod(stored.shape) * DTYPES[storage.dtype].itemsize
        ranges = []
        for key, size in taken.items():
            if (member := self.archive.members.get(f"data/{key}")) is not None:
                length = _MAX_HEADER + (member.size if member.size - size <= PADDING else 0)
                ranges.append((member.header, min(length, self.archive.file.size - member.header)))
        return ranges

    def bytes_of(self, stored: StoredTensor, limit: int = 1 << 20) -> bytes:
        """The bytes of a small contiguous tensor, such as the state of a random generator.

        Raises:
            CheckpointError: it is not contiguous, or has more than ``limit`` bytes.
        """
        tensor = self.tensor("state", stored)
        if not tensor.contiguous or tensor.nbytes > limit:
            raise CheckpointError(
                "a random state has an unexpected form", self.archive.file.where, "fetch the file again"
            )
        return bytes(self.archive.file.read(tensor.offset, tensor.nbytes))
