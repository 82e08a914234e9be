"""Files that tell whether they are whole: the sha256 of their content comes before it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

_SEAL = 32  # bytes of the sha256


def read_sealed(path: Path) -> bytes | None:
    """The content of a file that :func:`write_sealed` wrote; None where there is none, or a torn or edited one.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    seal, content = content[:_SEAL], content[_SEAL:]
    return content if hashlib.sha256(content).digest() == seal else None


def write_sealed(path: Path, content: bytes) -> None:
    """Put ``content`` there in one step, for its owner's eyes only; another process may do so at the same time.

    Raises:
        OSError: it cannot be written, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
