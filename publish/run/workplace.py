"""Where a release keeps its ledger and the steps in flight, on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from publish.errors import StorageError

_PREFIX = "steps-"


@dataclass(frozen=True, slots=True)
class Workplace:
    """``folder`` stays (the ledger), ``work`` is this process's and goes when it ends."""

    folder: Path
    work: Path


def default_folder(endpoint: str, target: str) -> Path:
    """One folder for each target on each Hub, below ``HF_HOME``."""
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    hub = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return base.expanduser() / "publish" / f"{target.replace('/', '--')}-{hub}"


@contextmanager
def workplace(folder: Path) -> Iterator[Workplace]:
    """Make the folder and a work folder in it; sweep away those of processes that are gone.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PREFIX}*"):
            if not _alive(left.name.removeprefix(_PREFIX).split("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder))
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", folder, "name another --work-dir") from error
    try:
        yield Workplace(folder, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
