"""A rehearsal Hub for releases, and the client that a release uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub

MANY = 10**6


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path / "hub", api_quota=MANY, resolver_quota=MANY) as running:
        yield running


@pytest.fixture
def client_of(hub: RehearsalHub, tmp_path: Path) -> Callable[[str], Client]:
    """A client with this token."""

    def make(token: str) -> Client:
        return Client(Endpoint(hub.url, token), quota_dir=tmp_path / "quota", commits_per_hour=MANY)

    return make
