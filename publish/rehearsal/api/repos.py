"""Users and repos, with their branches, tags and history."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.responses import Response

from publish.rehearsal.errors import HttpError, bad_request, forbidden, repo_not_found, revision_not_found
from publish.rehearsal.front_matter import FrontMatterError, read_card
from publish.rehearsal.http.context import RequestContext, json_response, page_headers, parse_count, timestamp
from publish.rehearsal.names import KINDS, PLURALS, RepoId, branch_name, repo_id
from publish.rehearsal.storage.git import GitRepo

_MOST_REPOS = 1000
_MOST_COMMITS = 1000
_COMMITS_PER_PAGE = 50


def whoami(context: RequestContext) -> Response:
    user = context.require_user()
    organizations = [
        {"type": "org", "name": name, "fullname": name, "roleInOrg": "admin", "isEnterprise": False}
        for name in context.hub.store.namespaces_of(user.name)
    ]
    token = {"displayName": "rehearsal", "role": user.role}
    return json_response(
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


def auth_check(context: RequestContext) -> Response:
    context.require_downloadable(context.repo)
    return json_response({})


def stats(context: RequestContext) -> Response:
    return json_response(context.hub.stats.snapshot().document())


def reset_stats(context: RequestContext) -> Response:
    context.hub.stats.reset()
    return json_response({})


def create_repo(context: RequestContext) -> Response:
    user = context.require_write_token()
    options = context.json()
    repo = _parse_repo(options.get("name"), _parse_kind(options), options.get("organization") or user.name)
    private = options.get("visibility") == "private" or options.get("private") is True
    if not context.hub.store.create(repo, user.name, private=private):
        message = f"You already created this {KINDS[repo.kind]} repo"
        raise HttpError(409, message, extra={"url": context.repo_url(repo)})
    url = context.repo_url(repo)
    return json_response({"url": url, "name": repo.full_name, "id": repo.full_name, "private": private})


def delete_repo(context: RequestContext) -> Response:
    user = context.require_write_token()
    options = context.json()
    repo = _parse_repo(options.get("name"), _parse_kind(options), options.get("organization") or user.name)
    context.require_writable(repo)
    context.hub.store.delete(repo)
    return json_response({})


def move_repo(context: RequestContext) -> Response:
    options = context.json()
    source, target = (_parse_repo(options.get(key), _parse_kind(options), "") for key in ("fromRepo", "toRepo"))
    user = context.require_writable(source)
    context.hub.store.move(source, target, user.name)
    return json_response({"url": context.repo_url(target)})


def _parse_kind(options: dict[str, Any]) -> str:
    kind = options.get("type") or "model"
    if kind not in PLURALS:
        raise bad_request(f"The rehearsal Hub has models and datasets, not repos of type {kind!r}")
    return PLURALS[kind]


def _parse_repo(name: object, kind: str, owner: object) -> RepoId:
    """A repo by its full name, or by its name and owner."""
    if not isinstance(name, str) or not isinstance(owner, str):
        raise bad_request("The name of the repo is missing")
    first, slash, second = name.partition("/")
    return repo_id(kind, first, second) if slash else repo_id(kind, owner, name)


def change_settings(context: RequestContext) -> Response:
    repo = context.repo
    context.require_writable(repo)
    options = context.json()
    changes: dict[str, Any] = {}
    if "visibility" in options or "private" in options:
        changes["private"] = options.get("visibility") == "private" or options.get("private") is True
    if "gated" in options:
        if options["gated"] not in (False, "auto", "manual"):
            raise bad_request('"gated" must be one of [false, auto, manual]')
        changes["gated"] = options["gated"] or ""
    context.hub.store.change_settings(repo, **changes)
    return json_response({"visibility": "private" if context.require_readable(repo).private else "public", **options})


def repo_info(context: RequestContext) -> Response:
    git = context.open_git()
    commit = git.resolve(context.params.get("rev", "main"))
    document = _describe(context, context.repo, git, commit, blobs=context.flag("blobs"))
    parameters = context.request.query_params
    expand = parameters.getlist("expand") + parameters.getlist("expand[]")
    if expand:
        document = {key: value for key, value in document.items() if key in {"_id", "id", *expand}}
    return json_response(document)


def no_owner(context: RequestContext) -> Response:
    """Answer for a repo name without an owner: the rehearsal Hub has no such repos."""
    raise repo_not_found()


def list_repos(context: RequestContext) -> Response:
    """The repos of a kind that the user may see; ``author`` and ``search`` filter them."""
    author, search = context.query.get("author"), context.query.get("search", "").lower()
    size = parse_count(context.query.get("limit"), _MOST_REPOS, _MOST_REPOS)
    start = parse_count(context.query.get("cursor"), 0, 1 << 30)
    store = context.hub.store
    repos = [
        repo
        for repo in store.list_repos(context.params["kind"])
        if (not author or repo.owner == author)
        and search in repo.full_name.lower()
        and (not store.settings(repo).private or context.owns(repo))
    ]
    documents = []
    for repo in repos[start : start + size]:
        git = store.git(repo)
        documents.append(_describe(context, repo, git, git.resolve("main"), blobs=False))
    return json_response(documents, headers=page_headers(context, repos, size, start, {"cursor": str(start + size)}))


def _describe(context: RequestContext, repo: RepoId, git: GitRepo, commit: str, *, blobs: bool) -> dict[str, Any]:
    """A repo at a commit, as the API describes it; ``blobs`` adds sizes and digests of the files."""
    settings = context.require_readable(repo)
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
    metadata = _card_data(git.text(commit, "README.md") or "")
    document: dict[str, Any] = {
        "_id": hashlib.sha256(repo.web_path.encode()).hexdigest()[:24],
        "id": repo.full_name,
        "author": repo.owner,
        "sha": commit,
        "private": settings.private,
        "gated": settings.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(metadata),
        "cardData": metadata,
        "siblings": siblings,
        "createdAt": timestamp(settings.created_at),
        "lastModified": timestamp(git.commit_info(commit).time),
    }
    if repo.kind == "models":
        document["modelId"] = repo.full_name
        for key in ("pipeline_tag", "library_name"):
            if isinstance(metadata.get(key), str):
                document[key] = metadata[key]
    return document


def _card_data(readme: str) -> dict[str, Any]:
    """The front matter of a README; empty when there is none or it is malformed, as on the Hub."""
    try:
        return read_card(readme).data
    except FrontMatterError:
        return {}


def _tags(metadata: dict[str, Any]) -> list[str]:
    """The tags that the Hub derives from a card's metadata."""
    tags = [metadata.get("library_name"), metadata.get("pipeline_tag"), *_as_list(metadata.get("tags"))]
    tags += [f"dataset:{name}" for name in _as_list(metadata.get("datasets"))]
    tags += _as_list(metadata.get("language"))
    tags += [f"license:{name}" for name in _as_list(metadata.get("license"))]
    tags += [f"base_model:{name}" for name in _as_list(metadata.get("base_model"))]
    return [*dict.fromkeys(str(tag) for tag in tags if tag), "region:us"]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def create_branch(context: RequestContext) -> Response:
    """Without ``startingPoint`` the branch starts at the head of main, and has its files."""
    context.require_writable(context.repo)
    name = branch_name(context.params["branch"])
    start = str(context.json().get("startingPoint") or "main")
    ref = f"refs/heads/{name}"
    with context.hub.store.lock(context.repo):
        git = context.hub.store.git(context.repo)
        if git.tip(ref) is not None:
            raise HttpError(409, f"Reference {ref} already exists")
        commit = git.resolve(start)
        git.set_ref(ref, commit)
    return json_response({"success": True, "name": name, "ref": ref, "targetCommit": commit})


def delete_branch(context: RequestContext) -> Response:
    context.require_writable(context.repo)
    name = context.params["branch"]
    ref = name if name.startswith("refs/") else f"refs/heads/{name}"
    if ref == "refs/heads/main":
        raise forbidden("Cannot delete refs/heads/main")
    with context.hub.store.lock(context.repo):
        git = context.hub.store.git(context.repo)
        if not ref.startswith("refs/heads/") or git.tip(ref) is None:
            raise revision_not_found(name)
        git.delete_ref(ref)
    return json_response({"success": True})


def create_tag(context: RequestContext) -> Response:
    user = context.require_writable(context.repo)
    options = context.json()
    message = options.get("message")
    with context.hub.store.lock(context.repo):
        git = context.hub.store.git(context.repo)
        commit = git.resolve(context.params["rev"])
        name = branch_name(str(options.get("tag", "")))
        if git.tip(f"refs/tags/{name}") is not None:
            raise HttpError(409, f"Tag reference exists already: refs/tags/{name}")
        git.set_tag(name, commit, str(message) if message else None, user.name, int(context.hub.now()))
    return json_response({"success": True})


def delete_tag(context: RequestContext) -> Response:
    context.require_writable(context.repo)
    ref = f"refs/tags/{context.params['tag']}"
    with context.hub.store.lock(context.repo):
        git = context.hub.store.git(context.repo)
        if git.tip(ref) is None:
            raise revision_not_found(context.params["tag"])
        git.delete_ref(ref)
    return json_response({"success": True})


def list_refs(context: RequestContext) -> Response:
    git = context.open_git()

    def under(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": prefix + name, "targetCommit": commit}
            for name, commit in sorted(git.refs(prefix).items())
        ]

    document: dict[str, Any] = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    if context.flag("include_prs"):
        document["pullRequests"] = under("refs/pr/")
    return json_response(document)


def list_commits(context: RequestContext) -> Response:
    """The history of a revision, newest first; ``limit`` commits a page, page ``p`` from 0."""
    git = context.open_git()
    commits = list(git.history(git.resolve(context.params["rev"])))
    size = max(1, parse_count(context.query.get("limit"), _COMMITS_PER_PAGE, _MOST_COMMITS))
    page = parse_count(context.query.get("p"), 0, 1 << 30)
    parameters = context.request.query_params
    formatted = "formatted" in [*parameters.getlist("expand[]"), *context.query.get("expand", "").split(",")]
    documents = []
    for info in commits[page * size : (page + 1) * size]:
        document: dict[str, Any] = {"id": info.id, "title": info.title, "message": info.body}
        document |= {"authors": [{"user": info.author}], "date": timestamp(info.time)}
        if formatted:
            document["formatted"] = {"title": info.title, "message": info.body}
        documents.append(document)
    return json_response(documents, headers=page_headers(context, commits, size, page * size, {"p": str(page + 1)}))


def super_squash(context: RequestContext) -> Response:
    """Replace the history of a branch with one commit without parents."""
    user = context.require_writable(context.repo)
    name = context.params["rev"]
    message = str(context.json().get("message") or f"Super-squash branch '{name}' using huggingface_hub")
    with context.hub.store.lock(context.repo):
        git = context.hub.store.git(context.repo)
        tip = git.tip(f"refs/heads/{name}")
        if tip is None:
            raise revision_not_found(name)
        git.set_ref(f"refs/heads/{name}", git.squash(tip, message, user.name, int(context.hub.now())))
    return json_response({"success": True})


HANDLERS = {
    "whoami": whoami,
    "auth-check": auth_check,
    "stats": stats,
    "stats-reset": reset_stats,
    "create-repo": create_repo,
    "delete-repo": delete_repo,
    "move-repo": move_repo,
    "settings": change_settings,
    "repo-info": repo_info,
    "no-owner": no_owner,
    "no-owner-file": no_owner,
    "list-repos": list_repos,
    "create-branch": create_branch,
    "delete-branch": delete_branch,
    "create-tag": create_tag,
    "delete-tag": delete_tag,
    "refs": list_refs,
    "commits": list_commits,
    "super-squash": super_squash,
}
