from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from publish.hub.client import Client
from publish.hub.failures import Endpoint, Timeouts
from tests.clock import ManualClock
from tests.hub.client.scripted import TOKEN, Scripted


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(scripted: Scripted, clock: ManualClock, tmp_path: Path) -> Client:
    return Client(
        Endpoint(scripted.url, TOKEN),
        clock=clock,
        quota_dir=tmp_path / "quota",
        timeouts=Timeouts(connect=1, read=0.5, write=1),
    )
