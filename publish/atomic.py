"""Files that are written whole or not at all, and files that carry a checksum of their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_CHECKSUM = 32  # bytes of a SHA-256


def write_atomic(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file, readable by its owner alone. Whoever opens it meanwhile reads its old content or its new one.

    ``durable``: the content is on the disk when this returns; it survives a power cut, and other nodes of a shared file
    system see it.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_checksummed(path: Path, content: bytes) -> None:
    """Write ``content`` as :func:`write_atomic` does, preceded by its SHA-256; the folder is made if it is missing.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, hashlib.sha256(content).digest() + content)


def read_checksummed(path: Path) -> bytes | None:
    """The content of a file of :func:`write_checksummed`; None if the file is missing, torn or edited.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    checksum, content = data[:_CHECKSUM], data[_CHECKSUM:]
    return content if hashlib.sha256(content).digest() == checksum else None
