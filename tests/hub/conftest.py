from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publish.hub.client import Client
from publish.hub.failures import Endpoint, Timeouts
from tests.clock import ManualClock
from tests.hub.smallhub import SmallHub


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    server = SmallHub()
    yield server
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client_of(hub: SmallHub, clock: ManualClock, tmp_path: Path) -> Callable[[str], Client]:
    def make(user: str) -> Client:
        timeouts = Timeouts(connect=1, read=5, write=5)
        endpoint = Endpoint(hub.url, f"hf_{user}")
        return Client(endpoint, clock=clock, quota_dir=tmp_path / "quota", timeouts=timeouts, commits_per_hour=128)

    return make


@pytest.fixture
def client(client_of: Callable[[str], Client]) -> Client:
    return client_of("alice")
