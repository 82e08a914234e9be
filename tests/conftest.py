"""Where the tests find real checkpoints, and a network that ends at loopback."""

from __future__ import annotations

import os
import socket
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """A path in the folder of large test data beside the checkout; skips, by name, where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"../shared/{path} is absent")
    return found


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, which is closed again."""
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run that ships with the package: 154 real checkpoints."""
    folder = tmp_path_factory.mktemp("samples")
    archive = resources.files("publish") / "samples" / "pythia-tiny-seed1234.tar.xz"
    with resources.as_file(archive) as path, tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    return folder / "pythia-tiny-seed1234"


@pytest.fixture(scope="session")
def real14m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real 14M checkpoint of step 0 with its optimizer state; unpacking takes seconds, so nobody writes to it."""
    folder = tmp_path_factory.mktemp("real14m")
    with tarfile.open(shared("real14m/global_step0.tar.xz")) as tar:
        tar.extractall(folder, filter="data")
    return folder / "global_step0"


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's token, cache or quota."""
    home = tmp_path_factory.mktemp("hf-home")
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
