"""What was read before, on disk: trees by commit, small files and headers by their own digest. These never change."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from publish.errors import StorageError
from publish.sealed import read_sealed, write_sealed

_NAME = re.compile(r"[0-9A-Za-z._-]{1,128}")


class Cache:
    """Sealed files below ``folder``; a torn or edited one counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, endpoint: str) -> Cache:
        """The cache of one Hub, below ``HF_HOME``."""
        from huggingface_hub import constants

        home = Path(os.environ.get("HF_HOME", constants.HF_HOME))
        return cls(home / "publish" / "audit" / hashlib.sha256(endpoint.encode()).hexdigest()[:16])

    def get(self, kind: str, key: str) -> bytes | None:
        """What was put there; None where nothing was."""
        path = self._path(kind, key)
        try:
            return None if path is None else read_sealed(path)
        except OSError as error:
            raise self._error(error) from error

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Keep ``content``; another process may do so at the same time.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(kind, key)
        if path is None:
            return
        try:
            write_sealed(path, content)
        except OSError as error:
            raise self._error(error) from error

    def _path(self, kind: str, key: str) -> Path | None:
        """None for a key that is no plain name: a server made it up, and it is not kept."""
        return self.folder / kind / key[:2] / key if _NAME.fullmatch(key) and key.strip(".") else None

    def _error(self, error: OSError) -> StorageError:
        return StorageError(f"cannot use the audit's cache: {error.strerror}", self.folder, "set HF_HOME elsewhere")
