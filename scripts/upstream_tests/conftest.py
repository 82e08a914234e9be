"""Fixtures for huggingface_hub's own tests, since upstream's conftest is not in its sdist.

scripts/upstream_tests.py puts this file beside the unpacked tests. The Hub under test is named by ``HF_ENDPOINT``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.hf_api import RepoUrl

from . import testing_constants
from .testing_utils import repo_name

ENDPOINT = os.environ["HF_ENDPOINT"]
RepoFactory = Callable[..., RepoUrl]
MARKERS = ("api", "transfer", "inference", "xet", "no_xet", "production", "deprecated", "git_lfs", "vcr")

# The test modules import these by name, so they are replaced before any of those is imported.
testing_constants.ENDPOINT_STAGING = ENDPOINT
testing_constants.TOKEN, testing_constants.USER, testing_constants.FULL_NAME = "hf_alice", "alice", "alice"
testing_constants.OTHER_TOKEN, testing_constants.OTHER_USER = "hf_bob", "bob"


def pytest_configure(config: pytest.Config) -> None:
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: one of upstream's suites")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("production"):
            item.add_marker(pytest.mark.skip(reason="asks the real Hub"))


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"tests may connect to loopback only, not to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def api() -> HfApi:
    """The first of two users."""
    return HfApi(endpoint=ENDPOINT, token=testing_constants.TOKEN)


@pytest.fixture
def repo_factory(api: HfApi) -> Iterator[RepoFactory]:
    """Creates repos, and deletes them after the test."""
    made: list[tuple[str, str | None, str | None]] = []

    def make(repo_type: str | None = None, repo_id: str | None = None, **options: Any) -> RepoUrl:
        url = api.create_repo(repo_id or repo_name(), repo_type=repo_type, **options)
        made.append((url.repo_id, url.repo_type, options.get("token")))
        return url

    yield make
    for repo_id, repo_type, token in made:
        api.delete_repo(repo_id, repo_type=repo_type, token=token, missing_ok=True)


@pytest.fixture
def repo_write(repo_factory: RepoFactory) -> str:
    """A repo of the first user."""
    return str(repo_factory().repo_id)
