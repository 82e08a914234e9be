"""What comes before a commit: which files go to LFS, and whether a card's metadata is right."""

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

from publish.cards.metadata import check_metadata
from publish.rehearsal.api.xet import stored_size
from publish.rehearsal.errors import Refusal, bad_request, revision_not_found
from publish.rehearsal.front_matter import FrontMatterError, read_card
from publish.rehearsal.http.request import Call, User, answer
from publish.rehearsal.names import file_path
from publish.rehearsal.storage.git import Drop, GitRepo, Put, goes_to_lfs, ignored
from publish.rehearsal.storage.lfs import Pointer

# A card as the Hub's validator takes it: its front matter, then what the Hub asks of it.


def check_card(card: str, kind: str = "model") -> tuple[list[str], list[str]]:
    """Errors and warnings for a README. ``kind`` is model, dataset or space."""
    try:
        found = read_card(card)
    except FrontMatterError as error:
        return [f"Invalid YAML metadata: {error}"], []
    if not found.found or not found.data:
        return [], ["empty or missing yaml metadata in repo card"]
    return check_metadata(found.data, kind)


# The commit: NDJSON in, one commit out, all of it or nothing.


MOVED = "The branch was updated since you opened this page. Please refresh and try again."
_PR = "refs/pr/"


@dataclass(slots=True)
class _Draft:
    """A commit as far as it has been read."""

    git: GitRepo
    stored: Callable[[str], int | None]  # size of an LFS object that the repo has
    header: dict[str, Any] | None = None
    changes: list[Put | Drop] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        """One line: header first, then file, lfsFile, deletedFile, deletedFolder.

        Raises:
            Refusal: 400 when the line cannot be understood or names an LFS object that was not uploaded.
        """
        try:
            document = json.loads(line)
            key, value = document["key"], document["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise bad_request(f"A line of the commit is not understood: {line[:80]!r}") from error
        if not isinstance(value, dict):
            raise bad_request(f"The value of {key} is no mapping")
        if (key == "header") != (self.header is None):
            raise bad_request("The header is the first line of a commit, and the only one")
        match key:
            case "header":
                self.header = value
            case "file":
                content = _content(value)
                self.changes.append(Put(_checked(value, content), self.git.add_blob(content)))
            case "lfsFile":
                pointer = self._pointer(value).to_bytes()
                self.changes.append(Put(file_path(value.get("path")), self.git.add_blob(pointer)))
            case "deletedFile" | "deletedFolder" | "deletedEntry":
                self.changes.append(Drop(file_path(str(value.get("path", "")).rstrip("/"))))
            case _:
                raise bad_request(f"Unknown key in a commit: {key!r}")

    def _pointer(self, value: dict[str, Any]) -> Pointer:
        oid, algo = value.get("oid"), value.get("algo", "sha256")
        if algo != "sha256" or not isinstance(oid, str):
            raise bad_request("An lfsFile names a sha256")
        size = self.stored(oid)
        if size is None:
            raise bad_request(f"LFS pointer pointed to a file that does not exist: {value.get('path')} ({oid})")
        if value.get("size", size) != size:
            raise bad_request(f"{value.get('path')} is announced with {value['size']} bytes; the object has {size}")
        return Pointer(oid, size)

    @property
    def message(self) -> str:
        header = self.header or {}
        summary = str(header.get("summary") or "").strip()
        if not summary:
            raise bad_request("The commit has no summary")
        description = str(header.get("description") or "").strip()
        return f"{summary}\n\n{description}" if description else summary


async def commit(call: Call) -> Response:
    repo, create_pr = call.repo, call.flag("create_pr")
    user = call.writer() if create_pr else await run_in_threadpool(call.may_write, repo)
    git = await run_in_threadpool(_target, call)
    draft = _Draft(git, partial(stored_size, call, repo))
    async for line in _lines(call):
        await run_in_threadpool(draft.take, line)
    return await run_in_threadpool(_apply, call, draft, user, create_pr)


def _target(call: Call) -> GitRepo:
    """The repository, once it is clear that the revision can be committed to: a branch or a pull request."""
    git = call.readable()
    revision = call.params["rev"]
    if git.tip(_ref(revision)) is None:
        raise revision_not_found(revision)
    return git


def _apply(call: Call, draft: _Draft, user: User, create_pr: bool) -> Response:
    repo, revision = call.repo, call.params["rev"]
    message = draft.message
    with call.hub.store.lock(repo):
        git = call.readable()  # it may have been deleted meanwhile
        ref = _ref(revision)
        tip = git.tip(ref)
        if tip is None:
            raise revision_not_found(revision)
        expected = (draft.header or {}).get("parentCommit")
        if expected and expected != tip:
            raise Refusal(412, MOVED)
        made = git.add_commit(tip, draft.changes, message, user.name, int(call.hub.now()))
        number = max((int(name) for name in git.refs(_PR)), default=0) + 1 if create_pr else None
        git.set_ref(f"{_PR}{number}" if number else ref, made)
    branch = f"{_PR}{number}" if number else revision
    call.hub.stats.commit(repo.web_path, branch)
    document = {"success": True, "commitOid": made, "commitUrl": f"{call.url(repo)}/commit/{made}", "hookOutput": ""}
    if number:
        document["pullRequestUrl"] = f"{call.url(repo)}/discussions/{number}"
    return answer(document)


async def _lines(call: Call) -> AsyncIterator[bytes]:
    """The lines of the body, each at most as long as the options allow.

    Raises:
        Refusal: 413 for a longer one.
    """
    most = call.hub.options.largest_line
    buffer = bytearray()
    async for chunk in call.request.stream():
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            buffer += part
            if buffer.strip():
                yield bytes(buffer)
            buffer.clear()
        buffer += rest
        if len(buffer) > most:
            raise Refusal(413, f"A line of a commit may have at most {most} bytes; larger files go to LFS")
    if buffer.strip():
        yield bytes(buffer)


def _ref(revision: str) -> str:
    return revision if revision.startswith(("refs/heads/", _PR)) else f"refs/heads/{revision}"


def _content(value: dict[str, Any]) -> bytes:
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(content, str) or encoding not in ("base64", "utf-8"):
        raise bad_request(f"The content of {value.get('path')} is neither base64 nor text")
    if encoding == "utf-8":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise bad_request(f"The content of {value.get('path')} is no base64") from error


def _checked(value: dict[str, Any], content: bytes) -> str:
    """The path of a regular file; a README with invalid metadata is refused here, as on the Hub."""
    path = file_path(value.get("path"))
    if path == "README.md":
        errors, _ = check_card(content.decode("utf-8", errors="replace"))
        if errors:
            raise bad_request("\n".join(["Invalid metadata in README.md.", *(f"- {error}" for error in errors)]))
    return path


HANDLERS = {"commit": commit}


_MOST_FILES = 256


def preupload(call: Call) -> Response:
    """Upload mode of every file, and the id of what lies there already: that drives a client's no-op detection."""
    if not call.flag("create_pr"):
        call.may_write(call.repo)
    else:
        call.writer()
    git = call.readable()
    commit = git.resolve(call.params["rev"])
    asked = call.json()
    files = asked.get("files")
    if not isinstance(files, list):
        raise bad_request('"files" must be a list')
    if len(files) > _MOST_FILES:
        raise Refusal(413, f"At most {_MOST_FILES} files at once")
    attributes = git.text(commit, ".gitattributes") or ""
    gitignore = str(asked.get("gitIgnore") or git.text(commit, ".gitignore") or "")
    answers = []
    for each in files:
        path, size, sample = _file(each)
        entry = git.entry(commit, path)
        mode = "lfs" if goes_to_lfs(path, size, sample, attributes) else "regular"
        document: dict[str, Any] = {"path": path, "uploadMode": mode, "shouldIgnore": ignored(path, gitignore)}
        if entry is not None and not entry.is_folder:
            document["oid"] = entry.pointer.oid if entry.pointer else entry.oid
        answers.append(document)
    return answer({"files": answers, "commitOid": commit})


def _file(document: object) -> tuple[str, int, bytes]:
    if not isinstance(document, dict) or not isinstance(document.get("size"), int):
        raise bad_request("A file is {path, sample, size}")
    try:
        sample = base64.b64decode(str(document.get("sample") or ""), validate=True)
    except binascii.Error as error:
        raise bad_request(f"The sample of {document.get('path')} is no base64") from error
    return file_path(document.get("path")), document["size"], sample


def validate_yaml(call: Call) -> Response:
    """Always JSON: a client parses the body before it looks at the status."""
    asked = call.json()
    if not isinstance(asked.get("content"), str):
        raise bad_request('"content" must be a string')
    errors, warnings = check_card(asked["content"], str(asked.get("repoType") or "model"))
    document = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return answer(document, 400 if errors else 200)


UPLOAD_HANDLERS = {"preupload": preupload, "validate-yaml": validate_yaml}
