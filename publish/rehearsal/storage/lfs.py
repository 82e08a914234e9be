"""LFS objects of one repo, addressed by their sha256, in git-lfs's own layout beside the git objects.

An object appears under its name complete or not at all: bytes are hashed while they go to a temporary file, which is
renamed when digest and size are those that were announced.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from publish.rehearsal.errors import bad_request
from publish.rehearsal.names import SHA256

CHUNK = 1 << 20
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What git has in place of an LFS file."""

    oid: str
    size: int

    def to_bytes(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


def parse_pointer(content: bytes) -> Pointer | None:
    """The pointer in a blob; None when it is another file."""
    found = _POINTER.fullmatch(content)
    return Pointer(found[1].decode(), int(found[2])) if found else None


class LfsStore:
    """The objects of the bare repository at ``repository``."""

    def __init__(self, repository: Path) -> None:
        self.root = repository / "lfs"

    def path(self, oid: str) -> Path:
        if not SHA256.fullmatch(oid):
            raise bad_request(f"Invalid LFS oid: {oid!r}")
        return self.root / "objects" / oid[:2] / oid[2:4] / oid

    def size(self, oid: str) -> int | None:
        """Size of a stored object; None when it is not stored."""
        try:
            return self.path(oid).stat().st_size
        except FileNotFoundError:
            return None

    def incoming(self) -> Incoming:
        """A temporary file for bytes that come in."""
        return Incoming(self.root / "incoming" / uuid.uuid4().hex)

    def accept(self, incoming: Incoming, oid: str, size: int) -> None:
        """Make ``incoming`` the object ``oid``.

        Raises:
            HttpError: 400 when digest or size differ; ``incoming`` is removed then.
        """
        digest, got = incoming.close()
        if (digest, got) != (oid, size):
            incoming.discard()
            raise bad_request(f"Expected {size} bytes with sha256 {oid}, got {got} bytes with {digest}")
        target = self.path(oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming.path.replace(target)

    # multipart

    def part(self, oid: str, number: int) -> Path:
        return self.root / "parts" / oid / f"{number:05d}"

    def accept_part(self, incoming: Incoming, oid: str, number: int) -> str:
        """Store a part of a multipart upload; its ETag."""
        digest, _ = incoming.close()
        target = self.part(oid, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming.path.replace(target)
        target.with_suffix(".etag").write_text(digest)
        return digest

    def complete(self, oid: str, size: int, etags: dict[int, str]) -> None:
        """Join the parts 1..n to the object ``oid``, and remove them.

        Raises:
            HttpError: 400 when a part is missing or has another ETag, or the whole has another digest or size.
        """
        if sorted(etags) != list(range(1, len(etags) + 1)):
            raise bad_request("The parts are not numbered from 1 without a gap")
        whole = self.incoming()
        try:
            for number, etag in sorted(etags.items()):
                part = self.part(oid, number)
                if not part.is_file() or part.with_suffix(".etag").read_text() != etag.strip('"'):
                    raise bad_request(f"Part {number} of {oid} is missing or has another ETag")
                with part.open("rb") as file:
                    while chunk := file.read(CHUNK):
                        whole.write(chunk)
        except BaseException:
            whole.close()
            whole.discard()
            raise
        self.accept(whole, oid, size)
        shutil.rmtree(self.root / "parts" / oid, ignore_errors=True)

    def sweep(self) -> None:
        """Remove incomplete uploads, which a killed server leaves behind."""
        shutil.rmtree(self.root / "incoming", ignore_errors=True)


class Incoming:
    """A temporary file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._file.write(chunk)
        self._size += len(chunk)

    def close(self) -> tuple[str, int]:
        """sha256 and size of what was written."""
        self._file.close()
        return self._hash.hexdigest(), self._size

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)
