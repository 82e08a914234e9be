"""The target repo: its name, whether it exists, our right to write to it, where its branches start, its card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.failures import Refused, Transient
from publish.hub.reads import TreeEntry, first_commit, list_tree


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose token it is. `role` is read, write or fineGrained; None if the Hub does not say."""

    name: str
    organizations: tuple[str, ...]
    role: str | None


@dataclass(frozen=True, slots=True)
class Base:
    """The first commit of a repo, where branches start, and the files that they inherit from it."""

    repo: str
    commit: str
    entries: tuple[TreeEntry, ...] = ()


def check_name(repo: str) -> None:
    """Check a name by the Hub's rules. Sends no request.

    Raises:
        HubError: `repo` is not of the form owner/name, or breaks another rule.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    fix = "name the target owner/name, with letters, digits, '-', '_' and '.', at most 96 of them"
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"invalid repo name: {error}", repo, fix) from error
    if repo.count("/") != 1:
        raise HubError("invalid repo name: the owner is missing", repo, fix)


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
            raise Transient("the answer names no user", where=client.endpoint.url)
        return answer

    answer = client.call("asking who owns the token", ask)
    token = (answer.get("auth") or {}).get("accessToken") or {}
    organizations = tuple(str(org["name"]) for org in answer.get("orgs") or () if "name" in org)
    return Identity(str(answer["name"]), organizations, token.get("role"))


def check_may_write(identity: Identity, repo: str) -> None:
    """Check the token's role and owner against `repo`. Sends no request.

    The scopes of a fine-grained token are not looked at: :func:`probe_write` asks the server.

    Raises:
        HubError: a read token, or a repo of somebody else.
    """
    owner = repo.split("/")[0]
    if identity.role == "read":
        fix = "create a token with the role write and set HF_TOKEN to it"
        raise HubError(f"the token of {identity.name} is read-only", repo, fix)
    if owner != identity.name and owner not in identity.organizations:
        names = ", ".join((identity.name, *identity.organizations))
        raise HubError(f"the token belongs to {names}, not to {owner}", repo, f"use a token of {owner}")


def ensure_repo(client: Client, repo: str, *, private: bool = False) -> bool:
    """Create the repo unless it exists, in one request; returns whether it was created.

    Raises:
        HubError: no right to create it, a name that the Hub refuses, no connection.
    """
    try:
        client.call(f"creating {repo}", lambda: client.api.create_repo(repo, private=private))
    except Refused as error:
        if error.status == 409:
            return False
        raise
    return True


def check_private(client: Client, repo: str) -> None:
    """Check that a repo is private, in one request.

    Raises:
        HubError: it is public, or the failures of :meth:`Client.call`.
    """
    if not client.call(f"reading the settings of {repo}", lambda: client.api.repo_info(repo)).private:
        fix = "make it private in its settings, or leave out --private"
        raise HubError("the repo exists and is public, but --private was given", repo, fix)


def find_base(client: Client, repo: str) -> Base:
    """The first commit and its files, in two requests (more if `main` has a long history).

    Raises:
        HubError: no such repo, no access, no connection.
    """
    commit = first_commit(client, repo)
    return Base(repo, commit, list_tree(client, repo, commit))


def probe_write(client: Client, repo: str) -> None:
    """Check with the server that we may write to `repo`, by the preupload request of a commit. Changes nothing.

    Raises:
        HubError: 401, 403, no such repo, no connection.
    """
    from huggingface_hub import CommitOperationAdd

    def ask() -> None:
        probe = CommitOperationAdd("publish-probe.txt", b"probe")
        client.api.preupload_lfs_files(repo, [probe], revision="main")

    client.call(f"asking for write access to {repo}", ask)


def front_matter(card: str) -> str:
    """The YAML between the first two ``---`` lines; empty if there is none."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    for index, line in enumerate(lines[1:], 1):
        if line.strip() == "---":
            return "\n".join(lines[1:index])
    return ""


def validate_card(client: Client, card: str, where: object) -> tuple[str, ...]:
    """Let the server validate the metadata of a card; returns its warnings. One request per distinct front matter.

    Raises:
        HubError: the metadata is invalid, or the failures of :meth:`Client.call`.
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
        raise HubError("the Hub rejects the card's metadata: " + "; ".join(errors), where, fix)
    client.validated_cards.add(digest)
    return _messages(answer, "warnings")


def _messages(answer: Any, key: str) -> tuple[str, ...]:
    found = answer.get(key) if isinstance(answer, dict) else None
    return tuple(str(item.get("message", item) if isinstance(item, dict) else item) for item in found or ())
