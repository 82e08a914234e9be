"""The zip index of a torch file: member names and where their bytes lie. Nothing is decompressed.

torch writes members *stored* (not compressed), with Zip64 records where sizes need them (caffe2's
``PyTorchStreamWriter`` over miniz). Anything else is refused: a deflated member cannot be read by position.
"""

from __future__ import annotations

import encodings.cp437  # noqa: F401  zipfile decodes names with it; loaded here, so that no file causes an import
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publish.errors import CheckpointError
from publish.source.files import CheckpointFile

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_DIRECTORY = 8 << 20  # bytes; a storage takes about 100, and the largest checkpoints have some thousands
_TAIL = 1 << 16  # what one read at the end of a file usually covers: the central directory


@dataclass(frozen=True, slots=True)
class Member:
    """One stored member: ``size`` bytes at ``header`` + local header; the data offset is found on first use."""

    name: str
    header: int
    size: int
    crc: int


class Window(io.RawIOBase):
    """A seekable view of a :class:`CheckpointFile` that remembers the blocks at both ends.

    zipfile reads the central directory in small pieces; over a network each would be a request.
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
    """The members of one torch file, by name without the root folder, non-overlapping and inside the file."""

    file: CheckpointFile
    members: Mapping[str, Member]

    @classmethod
    def open(cls, file: CheckpointFile) -> Archive:
        """Read the central directory.

        Raises:
            CheckpointError: not a zip, truncated, compressed, duplicated or overlapping members.
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
                "the file is truncated or not written by torch >= 1.6; fetch or copy it again",
            ) from error
        return cls(file, dict(_checked(file, infos)))

    def data_offset(self, member: Member) -> int:
        """Where the bytes of ``member`` begin: after its local header, whose length only the header tells."""
        header = bytes(self.file.read(member.header, _LOCAL_HEADER.size))
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise _refused(self.file, f"member {member.name!r} has no local header at byte {member.header}")
        fields = _LOCAL_HEADER.unpack(header)
        offset = member.header + _LOCAL_HEADER.size + int(fields[-2]) + int(fields[-1])
        if offset + member.size > self.file.size:
            raise _refused(self.file, f"member {member.name!r} ends past the end of the file")
        return offset

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a small member, at most ``limit``."""
        member = self.members.get(name)
        if member is None:
            raise _refused(self.file, f"no member {name!r}")
        if member.size > limit:
            raise _refused(self.file, f"member {name!r} is {member.size:,} bytes, over the {limit:,} this tool reads")
        content = bytes(self.file.read(self.data_offset(member), member.size))
        if member.crc not in (0, zlib.crc32(content)):  # 0: torch was told to write none
            raise _refused(self.file, f"member {name!r} is not what its checksum says")
        return content


def _refused(file: CheckpointFile, what: str) -> CheckpointError:
    return CheckpointError(
        f"broken torch archive: {what}",
        file.where,
        "the file is damaged or was made to deceive; fetch it again",
    )


def _checked(file: CheckpointFile, infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, Member]]:
    roots = {info.filename.split("/", 1)[0] for info in infos}
    if len(roots) != 1:
        raise _refused(file, f"{len(roots)} root folders where torch writes one")
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
