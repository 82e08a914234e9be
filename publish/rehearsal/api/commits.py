"""Commits, and what a client asks before one: upload modes, and whether a card's metadata is valid."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from publish.rehearsal.api.xet import stored_size
from publish.rehearsal.errors import HttpError, bad_request, revision_not_found
from publish.rehearsal.front_matter import validate_card
from publish.rehearsal.http.context import RequestContext, User, json_response
from publish.rehearsal.names import file_path
from publish.rehearsal.storage.git import DeletePath, GitRepo, PutFile, goes_to_lfs, is_ignored
from publish.rehearsal.storage.lfs import Pointer

_MOST_FILES = 256
_LONGEST_LINE = 64 << 20
_PULL_REQUESTS = "refs/pr/"


def validate_yaml(context: RequestContext) -> Response:
    """Errors and warnings of a card. Always JSON, because a client parses the body before it checks the status."""
    options = context.json()
    if not isinstance(options.get("content"), str):
        raise bad_request('"content" must be a string')
    errors, warnings = validate_card(options["content"], str(options.get("repoType") or "model"))
    document = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return json_response(document, 400 if errors else 200)


def preupload(context: RequestContext) -> Response:
    """The upload mode of each file, and the id of the file that the revision has at its path.

    A client compares that id alone to find out which files are unchanged.
    """
    if not context.flag("create_pr"):
        context.require_writable(context.repo)
    else:
        context.require_write_token()
    git = context.open_git()
    commit = git.resolve(context.params["rev"])
    options = context.json()
    files = options.get("files")
    if not isinstance(files, list):
        raise bad_request('"files" must be a list')
    if len(files) > _MOST_FILES:
        raise HttpError(413, f"At most {_MOST_FILES} files at once")
    attributes = git.text(commit, ".gitattributes") or ""
    gitignore = str(options.get("gitIgnore") or git.text(commit, ".gitignore") or "")
    documents = []
    for file in files:
        path, size, sample = _parse_file(file)
        entry = git.entry(commit, path)
        mode = "lfs" if goes_to_lfs(path, size, sample, attributes) else "regular"
        document: dict[str, Any] = {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored(path, gitignore)}
        if entry is not None and not entry.is_folder:
            document["oid"] = entry.pointer.oid if entry.pointer else entry.oid
        documents.append(document)
    return json_response({"files": documents, "commitOid": commit})


def _parse_file(document: object) -> tuple[str, int, bytes]:
    if not isinstance(document, dict) or not isinstance(document.get("size"), int):
        raise bad_request("A file must be {path, sample, size}")
    try:
        sample = base64.b64decode(str(document.get("sample") or ""), validate=True)
    except binascii.Error as error:
        raise bad_request(f"The sample of {document.get('path')} is not base64") from error
    return file_path(document.get("path")), document["size"], sample


async def commit(context: RequestContext) -> Response:
    """NDJSON in, one commit out: all of it or nothing."""
    repo, create_pr = context.repo, context.flag("create_pr")
    if create_pr:
        user = context.require_write_token()
    else:
        user = await run_in_threadpool(context.require_writable, repo)
    git = await run_in_threadpool(_open_target, context)
    draft = _Draft(git, partial(stored_size, context, repo))
    async for line in _read_lines(context):
        await run_in_threadpool(draft.add, line)
    return await run_in_threadpool(_apply, context, draft, user, create_pr)


@dataclass(slots=True)
class _Draft:
    """The part of a commit that has been read. ``stored_size`` is the size of an LFS object, None if it is absent."""

    git: GitRepo
    stored_size: Callable[[str], int | None]
    header: dict[str, Any] | None = None
    changes: list[PutFile | DeletePath] = field(default_factory=list)

    def add(self, line: bytes) -> None:
        """Read one line: the header first, then file, lfsFile, deletedFile and deletedFolder.

        A file that is copied on the Hub is an lfsFile without a size, whose object the repo has already.

        Raises:
            HttpError: 400 when the line is malformed or names an LFS object that was not uploaded.
        """
        try:
            document = json.loads(line)
            key, value = document["key"], document["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise bad_request(f"A line of the commit is not {{key, value}}: {line[:80]!r}") from error
        if not isinstance(value, dict):
            raise bad_request(f"The value of {key} is not a mapping")
        if (key == "header") != (self.header is None):
            raise bad_request("The header must be the first line of a commit, and the only one")
        match key:
            case "header":
                self.header = value
            case "file":
                content = _decode_content(value)
                self.changes.append(PutFile(_check_regular_file(value, content), self.git.add_blob(content)))
            case "lfsFile":
                pointer = self._pointer(value).to_bytes()
                self.changes.append(PutFile(file_path(value.get("path")), self.git.add_blob(pointer)))
            case "deletedFile" | "deletedFolder":
                self.changes.append(DeletePath(file_path(str(value.get("path", "")).rstrip("/"))))
            case _:
                raise bad_request(f"Unknown key in a commit: {key!r}")

    def _pointer(self, value: dict[str, Any]) -> Pointer:
        oid, algo = value.get("oid"), value.get("algo", "sha256")
        if algo != "sha256" or not isinstance(oid, str):
            raise bad_request("An lfsFile must have a sha256")
        size = self.stored_size(oid)
        if size is None:
            raise bad_request(f"LFS pointer pointed to a file that does not exist: {value.get('path')} ({oid})")
        if value.get("size", size) != size:
            raise bad_request(f"{value.get('path')} has {size} bytes, not the {value['size']} of the commit")
        return Pointer(oid, size)

    @property
    def message(self) -> str:
        header = self.header or {}
        summary = str(header.get("summary") or "").strip()
        if not summary:
            raise bad_request("The commit has no summary")
        description = str(header.get("description") or "").strip()
        return f"{summary}\n\n{description}" if description else summary


def _open_target(context: RequestContext) -> GitRepo:
    """The git repository, once the revision is known to be a branch or a pull request."""
    git = context.open_git()
    revision = context.params["rev"]
    if git.tip(_ref(revision)) is None:
        raise revision_not_found(revision)
    return git


def _apply(context: RequestContext, draft: _Draft, user: User, create_pr: bool) -> Response:
    repo, revision = context.repo, context.params["rev"]
    message = draft.message
    with context.hub.store.lock(repo):
        git = context.open_git()  # the repo may have been deleted meanwhile
        ref = _ref(revision)
        tip = git.tip(ref)
        if tip is None:
            raise revision_not_found(revision)
        parent = (draft.header or {}).get("parentCommit")
        if parent and parent != tip:
            raise HttpError(412, "The branch was updated since you opened this page. Please refresh and try again.")
        oid = git.add_commit(tip, draft.changes, message, user.name, int(context.hub.now()))
        number = max((int(name) for name in git.refs(_PULL_REQUESTS)), default=0) + 1 if create_pr else None
        git.set_ref(f"{_PULL_REQUESTS}{number}" if number else ref, oid)
    context.hub.stats.add_commit(repo.web_path, f"{_PULL_REQUESTS}{number}" if number else revision)
    url = context.repo_url(repo)
    document = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
    if number:
        document["pullRequestUrl"] = f"{url}/discussions/{number}"
    return json_response(document)


async def _read_lines(context: RequestContext) -> AsyncIterator[bytes]:
    """The lines of the body.

    Raises:
        HttpError: 413 for a line that is too long.
    """
    buffer = bytearray()
    async for chunk in context.request.stream():
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            buffer += end
            if buffer.strip():
                yield bytes(buffer)
            buffer.clear()
        buffer += rest
        if len(buffer) > _LONGEST_LINE:
            raise HttpError(413, f"A line of a commit may have at most {_LONGEST_LINE} bytes; use LFS for larger files")
    if buffer.strip():
        yield bytes(buffer)


def _ref(revision: str) -> str:
    return revision if revision.startswith(("refs/heads/", _PULL_REQUESTS)) else f"refs/heads/{revision}"


def _decode_content(value: dict[str, Any]) -> bytes:
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(content, str) or encoding not in ("base64", "utf-8"):
        raise bad_request(f"The content of {value.get('path')} must be base64 or text")
    if encoding == "utf-8":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise bad_request(f"The content of {value.get('path')} is not base64") from error


def _check_regular_file(value: dict[str, Any], content: bytes) -> str:
    """The path of a regular file. A README with invalid metadata is refused here, as on the Hub."""
    path = file_path(value.get("path"))
    if path == "README.md":
        errors, _ = validate_card(content.decode("utf-8", errors="replace"))
        if errors:
            raise bad_request("\n".join(["Invalid metadata in README.md.", *(f"- {error}" for error in errors)]))
    return path


HANDLERS = {"validate-yaml": validate_yaml, "preupload": preupload, "commit": commit}
