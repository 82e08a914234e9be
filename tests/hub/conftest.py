"""A rehearsal Hub for what a Hub does, a scripted server for what no Hub can be made to answer, and their clients."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint, RetryPolicy, Timeouts
from publish.hub.repository import Base, ensure_repo, find_base
from publish.rehearsal.server import RehearsalHub
from tests.clock import ManualClock
from tests.hub.scripted import TOKEN, Scripted

_numbers = count()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(hub: RehearsalHub, clock: ManualClock, tmp_path: Path) -> Iterator[Client]:
    """A client of the rehearsal Hub, as alice. It gives up after few tries."""
    yield Client(
        Endpoint(hub.url, "hf_alice"),
        clock=clock,
        quota_dir=tmp_path / "quota",
        timeouts=Timeouts(connect=1, read=5, write=5),
        retry_policy=RetryPolicy(tries=4),
    )
    hub.inject(None)


@pytest.fixture
def repo(client: Client, hub: RehearsalHub) -> str:
    """A new repo of alice. Requests are counted from here on."""
    name = f"alice/repo-{next(_numbers)}"
    ensure_repo(client, name)
    hub.reset_stats()
    return name


@pytest.fixture
def base(client: Client, repo: str, hub: RehearsalHub) -> Base:
    found = find_base(client, repo)
    hub.reset_stats()
    return found


@pytest.fixture
def api(hub: RehearsalHub, client: Client) -> HfApi:
    """huggingface_hub as it stands, for another user of the repo."""
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def scripted_client(scripted: Scripted, clock: ManualClock, tmp_path: Path) -> Client:
    return Client(
        Endpoint(scripted.url, TOKEN),
        clock=clock,
        quota_dir=tmp_path / "quota",
        timeouts=Timeouts(connect=1, read=0.5, write=1),
    )
