"""Branches, tags, history, squashing."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from publish.rehearsal.api.repos import timestamp
from publish.rehearsal.errors import Refusal, forbidden, revision_not_found
from publish.rehearsal.http.request import Call, answer, number, page_of
from publish.rehearsal.names import branch_name

_MOST_COMMITS = 1000


def create_branch(call: Call) -> Response:
    """``startingPoint`` absent: the head of main. ``emptyBranch``: a first commit of its own that holds nothing."""
    user = call.may_write(call.repo)
    name = branch_name(call.params["branch"])
    asked = call.json()
    ref = f"refs/heads/{name}"
    with call.hub.store.lock(call.repo):
        git = call.hub.store.git(call.repo)
        if git.tip(ref) is not None and not asked.get("overwrite"):
            raise Refusal(409, f"Reference {ref} already exists")
        if asked.get("emptyBranch"):
            start = git.add_commit(None, [], "initial commit", user.name, int(call.hub.now()))
        else:
            start = git.resolve(str(asked.get("startingPoint") or "main"))
        git.set_ref(ref, start)
    return answer({"success": True, "name": name, "ref": ref, "targetCommit": start})


def delete_branch(call: Call) -> Response:
    call.may_write(call.repo)
    name = call.params["branch"]
    ref = name if name.startswith("refs/") else f"refs/heads/{name}"
    if ref == "refs/heads/main":
        raise forbidden("Cannot delete refs/heads/main")
    with call.hub.store.lock(call.repo):
        git = call.hub.store.git(call.repo)
        if not ref.startswith("refs/heads/") or git.tip(ref) is None:
            raise revision_not_found(name)
        git.delete_ref(ref)
    return answer({"success": True})


def create_tag(call: Call) -> Response:
    user = call.may_write(call.repo)
    asked = call.json()
    message = asked.get("message")
    with call.hub.store.lock(call.repo):
        git = call.hub.store.git(call.repo)
        commit = git.resolve(call.params["rev"])
        name = branch_name(str(asked.get("tag", "")))
        if git.tip(f"refs/tags/{name}") is not None:
            raise Refusal(409, f"Tag reference exists already: refs/tags/{name}")
        git.set_tag(name, commit, str(message) if message else None, user.name, int(call.hub.now()))
    return answer({"success": True})


def delete_tag(call: Call) -> Response:
    call.may_write(call.repo)
    ref = f"refs/tags/{call.params['tag']}"
    with call.hub.store.lock(call.repo):
        git = call.hub.store.git(call.repo)
        if git.tip(ref) is None:
            raise revision_not_found(call.params["tag"])
        git.delete_ref(ref)
    return answer({"success": True})


def refs(call: Call) -> Response:
    git = call.readable()

    def told(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": prefix + name, "targetCommit": commit}
            for name, commit in sorted(git.refs(prefix).items())
        ]

    document: dict[str, Any] = {"branches": told("refs/heads/"), "tags": told("refs/tags/"), "converts": []}
    if call.flag("include_prs"):
        document["pullRequests"] = told("refs/pr/")
    return answer(document)


def history(call: Call) -> Response:
    """Newest first; pages by ``p``, ``limit`` a page, the next one in Link."""
    git = call.readable()
    commits = list(git.history(git.resolve(call.params["rev"])))
    size = max(1, number(call.query.get("limit"), call.hub.options.commits_page, _MOST_COMMITS))
    page = number(call.query.get("p"), 0, 1 << 30)
    formatted = "formatted" in [
        *call.request.query_params.getlist("expand[]"),
        *call.query.get("expand", "").split(","),
    ]
    documents = []
    for info in commits[page * size : (page + 1) * size]:
        document: dict[str, Any] = {"id": info.id, "title": info.title, "message": info.body}
        document |= {"authors": [{"user": info.author}], "date": timestamp(info.time)}
        if formatted:
            document["formatted"] = {"title": info.title, "message": info.body}
        documents.append(document)
    return answer(documents, headers=page_of(call, commits, size, page * size, {"p": str(page + 1)}))


def super_squash(call: Call) -> Response:
    """One commit without parents takes the place of the branch's history."""
    user = call.may_write(call.repo)
    name = call.params["rev"]
    message = str(call.json().get("message") or f"Super-squash branch '{name}' using huggingface_hub")
    with call.hub.store.lock(call.repo):
        git = call.hub.store.git(call.repo)
        tip = git.tip(f"refs/heads/{name}")
        if tip is None:
            raise revision_not_found(name)
        git.set_ref(f"refs/heads/{name}", git.squash(tip, message, user.name, int(call.hub.now())))
    return answer({"success": True})


HANDLERS = {
    "create-branch": create_branch,
    "delete-branch": delete_branch,
    "create-tag": create_tag,
    "delete-tag": delete_tag,
    "refs": refs,
    "commits": history,
    "super-squash": super_squash,
}
