"""What can be known before the first weight is read ends a release before the first weight is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from publish.errors import CardError, HubError, PublishError, StorageError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from publish.release import executors
from publish.release_file import CardMetadata
from tests.clock import ManualClock
from tests.release.releases import TARGET, few, run_release

TEXT = CardMetadata("tiny")


@dataclass(frozen=True)
class Case:
    """What is wrong, and how it is said."""

    error: type[PublishError]
    says: str
    token: str | None = "hf_alice"
    change: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    exists: bool = False
    asked: frozenset[str] = frozenset()  # what the server may have been asked; empty: not looked at


CASES = {
    "no token": Case(HubError, "no token", token=None),
    "an unknown token": Case(
        HubError,
        "Invalid username",
        faults=({"route": "whoami", "status": 401, "body": {"error": "Invalid username"}},),
    ),
    "a token that may only read": Case(HubError, "is read-only", token="hf_read_alice"),
    "somebody else's namespace": Case(HubError, "belongs to bob, not to alice", token="hf_bob"),
    "no right to write": Case(
        HubError,
        "asking for write access.*HTTP 403",
        exists=True,
        faults=({"route": "preupload", "status": 403, "body": {"error": "Forbidden"}},),
    ),
    "no right to create": Case(HubError, "creating.*HTTP 403", faults=({"route": "create-repo", "status": 403},)),
    "public where private was asked for": Case(HubError, "is public", exists=True, options={"private": True}),
    "a name that cannot be": Case(
        HubError, "invalid repo name", change={"target": "alice/..tiny"}, asked=frozenset({"nothing"})
    ),
    "words without a license": Case(CardError, "no license", change={"card": replace(TEXT, license=" ")}),
    "words against the config": Case(
        CardError,
        "the card says 10 % warm-up, the config 1 %",
        change={"card": replace(TEXT, notes="Trained with 10 % warmup.")},
        asked=frozenset({"refs"}),
    ),
    "a license that nobody knows": Case(
        CardError,
        '"license" must be one of',
        change={"card": replace(TEXT, license="our-own")},
        asked=frozenset({"refs"}),
    ),
    "a card that the server refuses": Case(
        HubError,
        "rejects the card's metadata: this license is gone",
        faults=({"route": "validate-yaml", "status": 400, "body": {"errors": [{"message": "this license is gone"}]}},),
    ),
}


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_step(*_: object, **__: object) -> None:
        raise AssertionError("a weight would have been read")

    monkeypatch.setattr(executors, "make_step", make_step)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("name", CASES)
def test_it_ends_before_a_weight_is_read(name: str, samples: Path, tmp_path: Path, hub: RehearsalHub) -> None:
    case = CASES[name]
    run = few(samples, tmp_path)
    if case.exists:
        HfApi(endpoint=hub.url, token="hf_alice").create_repo(TARGET)
    hub.inject(list(case.faults))
    hub.reset_stats()
    client = Client(Endpoint(hub.url, case.token), clock=ManualClock(), quota_dir=tmp_path / "quota")
    with pytest.raises(case.error, match=case.says) as caught:
        run_release(run, client, tmp_path, case.change, **case.options)
    assert caught.value.exit_code == 2
    assert len(caught.value.fix) > 10
    asked = hub.stats().requests
    assert not {"commit", "create-branch", "lfs-upload"} & set(asked)
    if case.asked:
        assert set(asked) <= case.asked
    assert list((tmp_path / "work").glob("steps-*")) == []


@pytest.mark.usefixtures("never")
def test_a_disk_that_is_too_small(
    samples: Path, tmp_path: Path, client_of: Callable[[str], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(StorageError, match=r"bytes are needed for 2 steps in flight and 1,000,000 are free"):
        run_release(few(samples, tmp_path), client_of("hf_alice"), tmp_path)


@pytest.mark.usefixtures("never")
def test_an_endpoint_that_is_not_there(samples: Path, tmp_path: Path) -> None:
    client = Client(Endpoint("http://127.0.0.1:9", "hf_alice"), clock=ManualClock(), quota_dir=tmp_path)
    with pytest.raises(HubError, match="no answer after 3 tries") as caught:
        run_release(few(samples, tmp_path), client, tmp_path)
    assert "HF_ENDPOINT" in caught.value.fix


@pytest.mark.usefixtures("never")
def test_an_endpoint_that_is_no_hub(samples: Path, tmp_path: Path, hub: RehearsalHub) -> None:
    hub.inject([{"route": ".*", "status": 200, "body": "<html>Welcome to nginx</html>"}])
    client = Client(Endpoint(hub.url, "hf_alice"), clock=ManualClock(), quota_dir=tmp_path)
    with pytest.raises(HubError, match="an HTML page instead of an answer"):
        run_release(few(samples, tmp_path), client, tmp_path)


def test_a_private_release_is_private(samples: Path, tmp_path: Path, hub: RehearsalHub) -> None:
    for _ in range(2):
        client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=tmp_path / "quota")
        assert run_release(few(samples, tmp_path / "x"), client, tmp_path, private=True).failed == ()
        shutil.rmtree(tmp_path / "x")
        shutil.rmtree(tmp_path / "work")
    assert HfApi(endpoint=hub.url, token="hf_alice").repo_info(TARGET).private
    assert not HfApi(endpoint=hub.url, token="hf_bob").repo_exists(TARGET)
