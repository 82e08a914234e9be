"""Who am I, may I, and what has been counted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from publish.rehearsal.errors import Refusal, bad_request, repo_not_found
from publish.rehearsal.front_matter import FrontMatterError, read_card
from publish.rehearsal.http.request import Call, answer, number, page_of
from publish.rehearsal.names import KINDS, PLURALS, RepoId, repo_id
from publish.rehearsal.storage.git import GitRepo

# Repos as a whole: create, delete, move, settings, information, lists.


_README = "README.md"
_MOST_REPOS = 1000


def create(call: Call) -> Response:
    user = call.writer()
    asked = call.json()
    repo = _named(asked, user.name)
    private = asked.get("visibility") == "private" or asked.get("private") is True
    if not call.hub.store.create(repo, user.name, private=private):
        text = f"You already created this {KINDS[repo.kind]} repo"
        raise Refusal(409, text, extra={"url": call.url(repo)})
    return answer({"url": call.url(repo), "name": repo.full_name, "id": repo.full_name, "private": private})


def delete(call: Call) -> Response:
    repo = _named(call.json(), call.writer().name)
    call.may_write(repo)
    call.hub.store.delete(repo)
    return answer({})


def move(call: Call) -> Response:
    asked = call.json()
    kind = _kind(asked)
    source, target = (_split(asked.get(key), kind, "") for key in ("fromRepo", "toRepo"))
    user = call.may_write(source)
    call.hub.store.move(source, target, user.name)
    return answer({"url": call.url(target)})


def settings(call: Call) -> Response:
    repo = call.repo
    call.may_write(repo)
    asked = call.json()
    changes: dict[str, Any] = {}
    if "visibility" in asked or "private" in asked:
        changes["private"] = asked.get("visibility") == "private" or asked.get("private") is True
    if "gated" in asked:
        if asked["gated"] not in (False, "auto", "manual"):
            raise bad_request('"gated" must be one of [false, auto, manual]')
        changes["gated"] = asked["gated"] or ""
    call.hub.store.change_settings(repo, **changes)
    return answer({"visibility": "private" if call.may_read(repo).private else "public", **asked})


def info(call: Call) -> Response:
    git = call.readable()
    commit = git.resolve(call.params.get("rev", "main"))
    document = describe(call, call.repo, git, commit, blobs=call.flag("blobs"))
    expand = call.request.query_params.getlist("expand") + call.request.query_params.getlist("expand[]")
    if expand:
        document = {key: value for key, value in document.items() if key in {"_id", "id", *expand}}
    return answer(document)


def no_owner(call: Call) -> Response:
    """A name without an owner: none of those repos is here."""
    raise repo_not_found()


def list_repos(call: Call) -> Response:
    """All repos of a kind that the caller may see; ``author`` and ``search`` narrow it down."""
    author, search = call.query.get("author"), call.query.get("search", "").lower()
    size = number(call.query.get("limit"), _MOST_REPOS, _MOST_REPOS)
    start = number(call.query.get("cursor"), 0, 1 << 30)
    found = [
        repo
        for repo in call.hub.store.all_repos(call.params["kind"])
        if (not author or repo.owner == author)
        and search in repo.full_name.lower()
        and (not call.hub.store.settings(repo).private or call.owns(repo))
    ]
    documents = []
    for repo in found[start : start + size]:
        git = call.hub.store.git(repo)
        documents.append(describe(call, repo, git, git.resolve("main"), blobs=False))
    return answer(documents, headers=page_of(call, found, size, start, {"cursor": str(start + size)}))


def describe(call: Call, repo: RepoId, git: GitRepo, commit: str, *, blobs: bool) -> dict[str, Any]:
    """A repo at a commit as the API tells it: siblings, card data, tags, dates."""
    known = call.may_read(repo)
    siblings = []
    for entry in git.listing(commit, "", recursive=True):
        if entry.is_folder:
            continue
        sibling: dict[str, Any] = {"rfilename": entry.path}
        if blobs:
            sibling |= {"size": entry.size, "blobId": entry.oid}
            if entry.pointer:
                pointer_size = len(entry.pointer.to_bytes())
                sibling["lfs"] = {"sha256": entry.pointer.oid, "size": entry.size, "pointerSize": pointer_size}
        siblings.append(sibling)
    card = card_data(git.text(commit, _README) or "")
    document: dict[str, Any] = {
        "_id": hashlib.sha256(repo.web_path.encode()).hexdigest()[:24],
        "id": repo.full_name,
        "author": repo.owner,
        "sha": commit,
        "private": known.private,
        "gated": known.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags_of(card),
        "cardData": card,
        "siblings": siblings,
        "createdAt": timestamp(known.created_at),
        "lastModified": timestamp(git.commit_info(commit).time),
    }
    if repo.kind == "models":
        document["modelId"] = repo.full_name
        for key in ("pipeline_tag", "library_name"):
            if isinstance(card.get(key), str):
                document[key] = card[key]
    return document


def card_data(card: str) -> dict[str, Any]:
    """The front matter of a card; empty when it has none or is broken."""
    try:
        return read_card(card).data
    except FrontMatterError:
        return {}


def tags_of(card: dict[str, Any]) -> list[str]:
    """The tags that the Hub derives from a card's metadata."""
    found = [card.get("library_name"), card.get("pipeline_tag"), *_many(card.get("tags"))]
    found += [f"dataset:{name}" for name in _many(card.get("datasets"))]
    found += _many(card.get("language"))
    found += [f"license:{name}" for name in _many(card.get("license"))]
    found += [f"base_model:{name}" for name in _many(card.get("base_model"))]
    return [*dict.fromkeys(str(tag) for tag in found if tag), "region:us"]


def timestamp(seconds: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _kind(asked: dict[str, Any]) -> str:
    kind = asked.get("type") or "model"
    if kind not in PLURALS:
        raise bad_request(f"Unknown repo type: {kind!r}")
    return PLURALS[kind]


def _named(asked: dict[str, Any], user: str) -> RepoId:
    """The repo of a create or delete request: name, organization, type."""
    return _split(asked.get("name"), _kind(asked), asked.get("organization") or user)


def _split(name: object, kind: str, owner: object) -> RepoId:
    if not isinstance(name, str) or not isinstance(owner, str):
        raise bad_request("A repo's name is missing")
    first, slash, second = name.partition("/")
    return repo_id(kind, first, second) if slash else repo_id(kind, owner, name)


HANDLERS = {
    "create-repo": create,
    "delete-repo": delete,
    "move-repo": move,
    "settings": settings,
    "repo-info": info,
    "no-owner": no_owner,
    "no-owner-file": no_owner,
    "list-repos": list_repos,
}


def whoami(call: Call) -> Response:
    user = call.someone()
    organizations = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": "admin", "isEnterprise": False}
        for name in call.hub.store.namespaces_of(user.name)
    ]
    token = {"displayName": "rehearsal", "role": user.role}
    return answer(
        {
            "type": "user",
            "id": user.key[:24],
            "name": user.name,
            "fullname": user.name,
            "isPro": False,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def auth_check(call: Call) -> Response:
    call.may_download(call.repo)
    return answer({})


def stats(call: Call) -> Response:
    return answer(call.hub.stats.snapshot().document())


def reset(call: Call) -> Response:
    call.hub.stats.reset()
    return answer({})


ACCOUNT_HANDLERS = {"whoami": whoami, "auth-check": auth_check, "stats": stats, "stats-reset": reset}
