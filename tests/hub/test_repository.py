from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.hub.failures import Refused, Unavailable
from publish.hub.repository import (
    Identity,
    check_may_write,
    check_name,
    check_private,
    ensure_repo,
    find_base,
    front_matter,
    probe_write,
    validate_card,
    whoami,
)
from publish.rehearsal.server import RehearsalHub
from tests.hub.scripted import Answer, Scripted

PAGE = {"content-type": "text/html"}


@pytest.mark.parametrize("name", ["m", "a/b/c", "a/b--c", "a/.b", "a/b.git", "a/" + "b" * 100, "a b/c", ""])
def test_names_the_hub_refuses(name: str) -> None:
    with pytest.raises(HubError, match="invalid repo name"):
        check_name(name)


def test_names_the_hub_takes() -> None:
    check_name("EleutherAI/pythia-14m_seed0.1")


def test_whose_token_it_is(scripted_client: Client, scripted: Scripted) -> None:
    token = {"accessToken": {"displayName": "t", "role": "write"}}
    document = {"type": "user", "name": "alice", "orgs": [{"name": "lab"}], "auth": token}
    scripted.answer = lambda asked: Answer(body=json.dumps(document).encode())
    identity = whoami(scripted_client)
    assert identity == Identity("alice", ("lab",), "write")
    check_may_write(identity, "alice/m")
    check_may_write(identity, "lab/m")
    with pytest.raises(HubError, match="belongs to alice, lab"):
        check_may_write(identity, "other/m")
    with pytest.raises(HubError, match="read-only"):
        check_may_write(Identity("alice", (), "read"), "alice/m")


def test_no_token_and_a_bad_one(scripted_client: Client, scripted: Scripted, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no token"):
        whoami(Client(Endpoint(scripted.url), quota_dir=tmp_path))
    assert not scripted.asked
    scripted.answer = lambda asked: Answer(401, headers={"x-error-message": "Invalid username or password."})
    with pytest.raises(Refused, match="Invalid username"):
        whoami(scripted_client)


def test_a_repo_is_created_once(client: Client, hub: RehearsalHub) -> None:
    assert ensure_repo(client, "alice/once", private=True) is True
    assert ensure_repo(client, "alice/once") is False
    check_private(client, "alice/once")
    assert ensure_repo(client, "alice/public") is True
    with pytest.raises(HubError, match="exists and is public"):
        check_private(client, "alice/public")


def test_a_repo_that_may_not_be_made(client: Client, hub: RehearsalHub) -> None:
    hub.inject([{"route": "create-repo", "status": 403, "body": {"error": "You don't have the rights"}}])
    with pytest.raises(Refused, match="rights"):
        ensure_repo(client, "alice/forbidden")


def test_the_base_is_the_first_commit(client: Client, repo: str, api: HfApi) -> None:
    for content in (b"1", b"2"):
        api.upload_file(path_or_fileobj=content, path_in_repo="x", repo_id=repo)
    base = find_base(client, repo)
    assert base.commit == api.list_repo_commits(repo)[-1].commit_id
    assert [entry.path for entry in base.entries] == [".gitattributes"]


def test_probing_for_write_access_changes_nothing(client: Client, repo: str, hub: RehearsalHub) -> None:
    probe_write(client, repo)
    assert not hub.stats().commits
    hub.inject([{"route": "preupload", "status": 403, "body": {"error": "Forbidden"}}])
    with pytest.raises(Refused, match="Forbidden"):
        probe_write(client, repo)


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


def test_cards_are_validated_once_for_each_front_matter(scripted_client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(body=b'{"errors": [], "warnings": []}')
    for text in ("one", "two"):
        validate_card(scripted_client, f"---\nlicense: mit\n---\n{text}\n", "README.md")
    assert len(scripted.asked) == 1
    validate_card(scripted_client, "---\nlicense: apache-2.0\n---\n", "README.md")
    assert len(scripted.asked) == 2


def test_warnings_are_returned(scripted_client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(body=b'{"errors": [], "warnings": [{"message": "empty"}]}')
    assert validate_card(scripted_client, "# x", "README.md") == ("empty",)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [(503, b"<html>", PAGE), (200, b"<html>", PAGE), (200, b"oops", {"content-type": "text/plain"})],
)
def test_a_server_that_answers_pages_is_a_clear_error(
    status: int, body: bytes, headers: dict[str, str], scripted_client: Client, scripted: Scripted
) -> None:
    scripted.answer = lambda asked: Answer(status, body, dict(headers))
    with pytest.raises(Unavailable, match=r"validating the card's metadata: .*still failing after 7 tries"):
        validate_card(scripted_client, "# x", "README.md")


def test_a_page_with_status_400_is_a_clear_error(scripted_client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(400, b"<html>", dict(PAGE))
    with pytest.raises(HubError):
        validate_card(scripted_client, "# x", "README.md")
