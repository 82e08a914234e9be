"""The target repo: its name, its existence, our right to write there, where its branches start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.failures import Refused, Transient
from publish.hub.reads import first_commit, list_tree

GITATTRIBUTES = ".gitattributes"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token it is. `role` is read, write or fineGrained, as far as the Hub tells."""

    name: str
    organizations: tuple[str, ...]
    role: str | None


@dataclass(frozen=True, slots=True)
class Base:
    """The repo's first commit, where branches start, and what it holds besides .gitattributes."""

    repo: str
    commit: str
    inherited: tuple[str, ...] = ()


def check_name(repo: str) -> None:
    """The Hub's rules for names, offline.

    Raises:
        HubError: `repo` is not of the form owner/name, or breaks a rule of the Hub.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    fix = "name the target owner/name, with letters, digits, '-', '_' and '.', at most 96 of them"
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"no valid repo name: {error}", repo, fix) from error
    if repo.count("/") != 1:
        raise HubError("no valid repo name: the owner is missing", repo, fix)


def whoami(client: Client) -> Identity:
    """Whose token it is, in one request.

    Raises:
        HubError: no token, an invalid token, no connection.
    """
    if client.endpoint.token is None:
        raise HubError("no token", client.endpoint.url, "log in (`hf auth login`) or set HF_TOKEN")

    def ask() -> Any:
        answer = client.api.whoami()
        if not isinstance(answer, dict) or not answer.get("name"):
            raise Transient("the answer names nobody", where=client.endpoint.url)
        return answer

    answer = client.call("asking whose token this is", ask)
    token = (answer.get("auth") or {}).get("accessToken") or {}
    organizations = tuple(str(each["name"]) for each in answer.get("orgs") or () if "name" in each)
    return Identity(str(answer["name"]), organizations, token.get("role"))


def check_may_write(identity: Identity, repo: str) -> None:
    """What the token's own description tells of its right to write to `repo`; no request.

    A fine-grained token's scopes are not looked into: :func:`probe_write` asks the server.

    Raises:
        HubError: a read token, or an owner that the token does not belong to.
    """
    owner = repo.split("/")[0]
    if identity.role == "read":
        fix = "make a token with the role write and set HF_TOKEN to it"
        raise HubError(f"the token of {identity.name} may only read", repo, fix)
    if owner != identity.name and owner not in identity.organizations:
        mine = ", ".join((identity.name, *identity.organizations))
        raise HubError(f"the token belongs to {mine}, not to {owner}", repo, f"use a token of {owner}")


def ensure_repo(client: Client, repo: str, *, private: bool = False) -> bool:
    """Create the repo unless it exists; whether it was created. One request.

    Raises:
        HubError: no right to create it, a name the Hub refuses, no connection.
    """
    try:
        client.call(f"creating {repo}", lambda: client.api.create_repo(repo, private=private))
    except Refused as error:
        if error.status == 409:
            return False
        raise
    return True


def check_private(client: Client, repo: str) -> None:
    """That an existing repo which is to be private is. One request.

    Raises:
        HubError: it is public, or the failures of :meth:`Client.call`.
    """
    if not client.call(f"looking at {repo}", lambda: client.api.repo_info(repo)).private:
        fix = "make it private in its settings, or leave out --private"
        raise HubError("the repo exists and is public, and private was asked for", repo, fix)


def find_base(client: Client, repo: str) -> Base:
    """The first commit and its files, in two requests (more where `main` has a long history).

    Raises:
        HubError: no such repo, no access, no connection.
    """
    commit = first_commit(client, repo)
    paths = (entry.path for entry in list_tree(client, repo, commit))
    return Base(repo, commit, tuple(path for path in paths if path != GITATTRIBUTES))


def probe_write(client: Client, repo: str) -> None:
    """Ask the server whether we may write, changing nothing: the preupload question of a commit to `main`.

    Raises:
        HubError: 401, 403, no such repo, no connection.
    """
    from huggingface_hub import CommitOperationAdd

    def ask() -> None:
        probe = CommitOperationAdd("publish-probe.txt", b"probe")
        client.api.preupload_lfs_files(repo, [probe], revision="main")

    client.call(f"asking for write access to {repo}", ask)


def front_matter(card: str) -> str:
    """The YAML between the first two ``---`` lines; empty when there is none."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    for index, line in enumerate(lines[1:], 1):
        if line.strip() == "---":
            return "\n".join(lines[1:index])
    return ""


def validate_card(client: Client, card: str, where: object) -> tuple[str, ...]:
    """Let the server validate the card's metadata; its warnings. One request per distinct front matter.

    Raises:
        HubError: the server finds the metadata invalid, or the failures of :meth:`Client.call`.
    """
    yaml = front_matter(card)
    digest = hashlib.sha256(yaml.encode()).hexdigest()
    if digest in client.validated_cards:
        return ()
    url = f"{client.endpoint.url}/api/validate-yaml"

    def ask() -> Any:
        body = {"content": f"---\n{yaml}\n---\n", "repoType": "model"}
        response = client.session().post(url, json=body, headers=client.headers(url))
        answer = response.json()
        if response.status_code != 400 or not _messages(answer, "errors"):  # 400 carries its errors
            client.check(response)
        return answer

    answer = client.call("validating the card's metadata", ask)
    errors = _messages(answer, "errors")
    if errors:
        fix = "correct the card's metadata in the release file"
        raise HubError("the Hub finds the card's metadata invalid: " + "; ".join(errors), where, fix)
    client.validated_cards.add(digest)
    return _messages(answer, "warnings")


def _messages(answer: Any, key: str) -> tuple[str, ...]:
    found = answer.get(key) if isinstance(answer, dict) else None
    return tuple(str(each.get("message", each) if isinstance(each, dict) else each) for each in found or ())
