"""Locks between processes: `flock` on a file. The kernel releases one when its process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """Wait for the exclusive lock on `path` and hold it. Yields the file, which is created if it is missing.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def try_locked(path: Path) -> Iterator[TextIO | None]:
    """Hold the exclusive lock on `path` if it is free; yields None while another process or thread holds it.

    Raises:
        OSError: as for :func:`locked`.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        else:
            free = True
        yield file if free else None
