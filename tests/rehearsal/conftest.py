"""One Hub for all tests of this folder. Each test has a new repo, and its faults end with it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, set_client_factory
from huggingface_hub.utils import _http, disable_progress_bars

from publish.rehearsal.server import RehearsalHub

_number = itertools.count()
PUBLISH = (sys.executable, "-c", "from publish.cli import main; main()")
Commit = Callable[..., str]


@pytest.fixture(scope="package", autouse=True)
def _stock_client() -> Iterator[None]:
    """huggingface_hub's own HTTP client: publish.hub replaces it for the whole process."""
    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(_http.default_client_factory)
    yield
    set_client_factory(before)


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path_factory.mktemp("rehearsal"), multipart_above=1 << 20, part_size=1 << 19) as running:
        yield running


@pytest.fixture
def hub(shared_hub: RehearsalHub) -> Iterator[RehearsalHub]:
    shared_hub.reset_stats()
    yield shared_hub
    shared_hub.inject(None)


@pytest.fixture(autouse=True)
def _lfs_and_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disable_progress_bars()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def api(hub: RehearsalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def repo(api: HfApi) -> str:
    return str(api.create_repo(f"alice/model-{next(_number)}").repo_id)


@pytest.fixture
def commit(api: HfApi, repo: str) -> Commit:
    """Commit files to the test's repo; the commit's id."""

    def make(files: dict[str, bytes], branch: str = "main", parent: str | None = None) -> str:
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        made = api.create_commit(repo, operations, commit_message="m", revision=branch, parent_commit=parent)
        return str(made.oid)

    return make


@pytest.fixture
def web(hub: RehearsalHub) -> Iterator[httpx2.Client]:
    """Raw HTTP as alice; certificates, which take longer to load than a test, are not needed on loopback."""
    with httpx2.Client(base_url=hub.url, headers={"authorization": "Bearer hf_alice"}, verify=False) as client:
        yield client


class Process:
    """``publish hub`` in a separate process."""

    def __init__(self, root: Path, *arguments: str) -> None:
        command = [*PUBLISH, "hub", "--root", str(root), "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[-1]

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start servers on one folder; those still running at the end are killed."""
    running: list[Process] = []

    def begin(*arguments: str) -> Process:
        running.append(Process(tmp_path / "served", *arguments))
        return running[-1]

    yield begin
    for server in running:
        if server.process.poll() is None:
            server.end(9)
