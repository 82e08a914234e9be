from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.hub.failures import Refused, Unavailable
from publish.hub.repository import (
    Identity,
    check_may_write,
    check_name,
    ensure_repo,
    find_base,
    front_matter,
    probe_write,
    validate_card,
    whoami,
)
from tests.hub.smallhub import Fault, Reply, SmallHub, as_json, error

REPO = "alice/m"


@pytest.mark.parametrize("name", ["m", "a/b/c", "a/b--c", "a/.b", "a/b.git", "a/" + "b" * 100, "a b/c", ""])
def test_names_the_hub_refuses(name: str) -> None:
    with pytest.raises(HubError, match="invalid repo name"):
        check_name(name)


def test_names_the_hub_takes() -> None:
    check_name("EleutherAI/pythia-14m_seed0.1")


def test_whose_token_it_is(client: Client) -> None:
    identity = whoami(client)
    assert identity == Identity("alice", ("lab",), "write")
    check_may_write(identity, "alice/m")
    check_may_write(identity, "lab/m")
    with pytest.raises(HubError, match="belongs to alice, lab"):
        check_may_write(identity, "other/m")
    with pytest.raises(HubError, match="read-only"):
        check_may_write(Identity("alice", (), "read"), "alice/m")


def test_no_token_and_a_bad_one(client_of: Callable[[str], Client], hub: SmallHub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no token"):
        whoami(Client(Endpoint(hub.url), quota_dir=tmp_path))
    assert hub.calls == []
    with pytest.raises(Refused, match="Invalid username"):
        whoami(client_of("nobody"))


def test_a_repo_that_exists(client: Client, hub: SmallHub) -> None:
    assert ensure_repo(client, REPO) is False
    assert hub.calls == ["create-repo"]


def test_a_repo_that_is_made(client: Client, hub: SmallHub) -> None:
    hub.faults = [Fault("create-repo", as_json({"url": f"{hub.url}/alice/m"}))]
    assert ensure_repo(client, REPO, private=True) is True


def test_a_repo_that_may_not_be_made(client: Client, hub: SmallHub) -> None:
    hub.faults = [Fault("create-repo", error(403, "You don't have the rights to create a model"), times=9)]
    with pytest.raises(Refused, match="rights"):
        ensure_repo(client, REPO)


def test_the_base_is_the_first_commit(client: Client, hub: SmallHub) -> None:
    hub.push("main", {"x": b"1"})
    hub.push("main", {"x": b"2"})
    base = find_base(client, REPO)
    assert base.commit == hub.first
    assert [entry.path for entry in base.entries] == [".gitattributes"]
    assert hub.calls == ["commits", "tree"]


def test_probing_for_write_access_changes_nothing(client: Client, hub: SmallHub) -> None:
    probe_write(client, REPO)
    assert hub.calls == ["preupload"]
    hub.faults = [Fault("preupload", error(403, "Forbidden"), times=9)]
    with pytest.raises(Refused, match="Forbidden"):
        probe_write(client, REPO)


@pytest.mark.parametrize(
    ("card", "yaml"),
    [
        ("---\na: 1\nb: 2\n---\n# x\n---\n", "a: 1\nb: 2"),
        ("---\r\na: 1\r\n---\r\n", "a: 1"),
        ("# x\n---\na: 1\n---\n", ""),
        ("---\na: 1\n", ""),
        ("", ""),
    ],
)
def test_front_matter(card: str, yaml: str) -> None:
    assert front_matter(card) == yaml


def test_cards_are_validated_once_a_front_matter(client: Client, hub: SmallHub) -> None:
    for text in ("one", "two"):
        validate_card(client, f"---\nlicense: mit\n---\n{text}\n", "README.md")
    assert hub.calls == ["validate-yaml"]
    validate_card(client, "---\nlicense: apache-2.0\n---\n", "README.md")
    assert len(hub.calls) == 2


def test_warnings_are_handed_back(client: Client, hub: SmallHub) -> None:
    hub.faults = [Fault("validate-yaml", as_json({"errors": [], "warnings": [{"message": "empty"}]}))]
    assert validate_card(client, "# x", "README.md") == ("empty",)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503, b"<html>", {"content-type": "text/html"}),
        Reply(200, b"<html>", {"content-type": "text/html"}),
        Reply(200, b"oops", {"content-type": "text/plain"}),
    ],
)
def test_a_server_that_answers_pages_is_a_clear_error(reply: Reply, client: Client, hub: SmallHub) -> None:
    hub.faults = [Fault("validate-yaml", reply, times=99)]
    with pytest.raises(Unavailable, match="validating the card's metadata: still failing after 7 tries"):
        validate_card(client, "# x", "README.md")


def test_a_page_with_status_400_is_a_clear_error(client: Client, hub: SmallHub) -> None:
    hub.faults = [Fault("validate-yaml", Reply(400, b"<html>", {"content-type": "text/html"}), times=99)]
    with pytest.raises(HubError):
        validate_card(client, "# x", "README.md")
