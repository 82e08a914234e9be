"""Where a release keeps its ledger and the steps in flight, on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from publish.errors import StorageError

_PREFIX = "steps-"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Workplace:
    """``folder`` stays (the ledger), ``work`` is this process's and goes when it ends."""

    folder: Path
    work: Path


def default_folder(endpoint: str, target: str) -> Path:
    """One folder for each target on each Hub, below ``HF_HOME``."""
    hub = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return _base() / f"{target.replace('/', '--')}-{hub}"


def _base() -> Path:
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return base.expanduser() / "publish"


@contextmanager
def workplace(folder: Path) -> Iterator[Workplace]:
    """Make the folder and a work folder in it; sweep away those of processes that are gone, on whatever machine.

    A process holds a lock in its work folder as long as it lives: a folder may be shared by machines.

    Raises:
        StorageError: it cannot be written.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / _LOCK):
                for left in folder.glob(f"{_PREFIX}*"):
                    if _gone(left):
                        shutil.rmtree(left, ignore_errors=True)
                work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
                held.callback(shutil.rmtree, work, ignore_errors=True)
                held.enter_context(_locked(work / _LOCK))
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", folder, "name another --work-dir") from error
        yield Workplace(folder, work)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _gone(work: Path) -> bool:
    """Whether no process holds the lock of a work folder."""
    try:
        with (work / _LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
