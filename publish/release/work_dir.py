"""The folder in which a release keeps the steps in flight."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from publish.errors import StorageError
from publish.hub.endpoint import cache_folder
from publish.locks import locked, try_locked

_PREFIX = "steps-"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class WorkDir:
    """``folder`` stays; ``steps``, a folder in it, is this process's and is removed when it ends."""

    folder: Path
    steps: Path


def default_folder(endpoint: str, target: str) -> Path:
    """A folder for each target on each Hub, below ``HF_HOME``."""
    hub = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return cache_folder() / f"{target.replace('/', '--')}-{hub}"


@contextmanager
def open_work_dir(folder: Path) -> Iterator[WorkDir]:
    """Make ``folder`` and this process's folder in it, and remove those of processes that have ended.

    A process holds a lock in its own folder as long as it lives, so ``folder`` may be shared by machines.

    Raises:
        StorageError: it cannot be written.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / _LOCK):
                for left in folder.glob(f"{_PREFIX}*"):
                    if _gone(left):
                        shutil.rmtree(left, ignore_errors=True)
                work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
                held.callback(shutil.rmtree, work, ignore_errors=True)
                held.enter_context(locked(work / _LOCK))
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", folder, "name another --work-dir") from error
        yield WorkDir(folder, work)


def _gone(work: Path) -> bool:
    """Whether no process holds the lock of its folder."""
    if not (work / _LOCK).exists():
        return True
    with try_locked(work / _LOCK) as lock:
        return lock is not None
