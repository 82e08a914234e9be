"""Files of a revision: trees, what is known of single paths, and the bytes themselves."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from publish.rehearsal.api.repos import timestamp
from publish.rehearsal.errors import Refusal, bad_request, entry_not_found
from publish.rehearsal.http.request import Call, answer, page_of
from publish.rehearsal.names import file_path
from publish.rehearsal.storage.git import Entry, GitRepo

# Bytes on their way out: whole or a range of them, in chunks, never as something a browser would run.


CHUNK = 256 << 10
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_IMAGES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}
_TEXTS = frozenset({".md", ".txt", ".json", ".yaml", ".yml", ".py", ".cfg", ".csv", ".html", ".gitattributes", ""})


def file_response(request: Request, content: bytes | Path, headers: Mapping[str, str], path: str) -> Response:
    """200, or 206 for a Range header that can be met; several ranges at once are answered whole.

    Raises:
        Refusal: 416 for a range outside the file.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    first, last, status = _range(request.headers.get("range"), size)
    out = {
        **headers,
        "Content-Length": str(last - first + 1),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    if status == 206:
        out["Content-Range"] = f"bytes {first}-{last}/{size}"
    if request.headers.get("if-none-match") == headers.get("ETag") and status == 200:
        out.pop("Content-Length")
        return Response(status_code=304, headers=out)
    if request.method == "HEAD":
        return Response(status_code=status, headers=out, media_type=_media_type(path))
    if isinstance(content, bytes):
        return Response(content[first : last + 1], status, out, _media_type(path))
    return StreamingResponse(_chunks(content, first, last - first + 1), status, out, _media_type(path))


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    """First and last byte, and the status."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return 0, size - 1, 200
    if found[1]:
        first, last = int(found[1]), int(found[2]) if found[2] else size - 1
        if last < first and found[2]:
            return 0, size - 1, 200  # RFC 9110, 14.1.1: an invalid range is no range
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first >= size:
        raise Refusal(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return first, min(last, size - 1), 206


async def _chunks(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    file = await run_in_threadpool(path.open, "rb", 0)
    try:
        await run_in_threadpool(file.seek, start)
        while length > 0:
            chunk = await run_in_threadpool(file.read, min(CHUNK, length))
            if not chunk:
                return
            length -= len(chunk)
            yield chunk
    finally:
        file.close()


def _media_type(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _IMAGES:
        return f"image/{_IMAGES[suffix]}"
    return "text/plain; charset=utf-8" if suffix in _TEXTS else "application/octet-stream"


_MOST_PATHS = 1000


def tree(call: Call) -> Response:
    """A folder's entries: 1000 a page, 50 with ``expand``; the next page in Link. A path that is a file is a 404."""
    git = call.readable()
    commit = git.resolve(call.params["rev"])
    folder = call.params.get("path", "").strip("/")
    entries = git.listing(commit, file_path(folder) if folder else "", recursive=call.flag("recursive"))
    expand = call.flag("expand")
    options = call.hub.options
    size = options.expanded_page if expand else options.tree_page
    limit = call.query.get("limit", "")
    if limit.isdigit() and 0 < int(limit) < size:
        size = int(limit)
    start = _position(call.query.get("cursor"))
    page = entries[start : start + size]
    cursor = base64.urlsafe_b64encode(str(start + size).encode()).decode()
    headers = page_of(call, entries, size, start, {"cursor": cursor})
    return answer(_told(git, commit, page, expand=expand), headers={**headers, "X-Repo-Commit": commit})


def paths_info(call: Call) -> Response:
    """Entries of the paths named in a form body (or JSON); those that do not exist are left out."""
    git = call.readable()
    commit = git.resolve(call.params["rev"])
    if "json" in call.request.headers.get("content-type", ""):
        asked = call.json()
        paths, expand = asked.get("paths", []), bool(asked.get("expand"))
    else:
        form = parse_qs(call.body.decode("utf-8", errors="replace"), keep_blank_values=True)
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    if not isinstance(paths, list):
        raise bad_request('"paths" must be a list')
    if len(paths) > _MOST_PATHS:
        raise Refusal(413, f"At most {_MOST_PATHS} paths at once")
    found = []
    for path in paths:
        try:
            entry = git.entry(commit, file_path(str(path).rstrip("/")))
        except Refusal:  # no path that a repo could have: it does not exist
            continue
        if entry is not None:
            found.append(entry)
    return answer(_told(git, commit, found, expand=expand))


def _told(git: GitRepo, commit: str, entries: Sequence[Entry], *, expand: bool) -> list[dict[str, Any]]:
    changes = git.last_changes(commit, [entry.path for entry in entries]) if expand else {}
    documents = []
    for entry in entries:
        kind = "directory" if entry.is_folder else "file"
        document: dict[str, Any] = {"type": kind, "oid": entry.oid, "size": entry.size, "path": entry.path}
        if entry.pointer:
            pointer_size = len(entry.pointer.to_bytes())
            document["lfs"] = {"oid": entry.pointer.oid, "size": entry.size, "pointerSize": pointer_size}
        if change := changes.get(entry.path):
            document["lastCommit"] = {"id": change.id, "title": change.title, "date": timestamp(change.time)}
            if not entry.is_folder:
                document["securityFileStatus"] = {"status": "unscanned", "avScan": None, "pickleImportScan": None}
        documents.append(document)
    return documents


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError) as error:
        raise bad_request("Invalid cursor") from error


def resolve(call: Call) -> Response:
    """A file's bytes; for an LFS file a redirect to a signed location that expires.

    The final answer carries X-Repo-Commit and ETag too, because a client that follows a redirect within one origin
    reads them there.
    """
    repo = call.repo
    call.may_download(repo)
    git = call.hub.store.git(repo)
    commit = git.resolve(call.params["rev"])
    entry = git.entry(commit, file_path(call.params["path"]))
    if entry is None or entry.is_folder:
        raise entry_not_found("Entry not found", commit)
    headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if entry.pointer is None:
        headers["ETag"] = f'"{entry.oid}"'
        return file_response(call.request, git.blob(entry.oid), headers, entry.path)
    headers |= {"X-Linked-Etag": f'"{entry.pointer.oid}"', "X-Linked-Size": str(entry.size)}
    path = f"/cdn/{repo.kind}/{repo.full_name}/{entry.pointer.oid}"
    location = f"{path}?{call.hub.signer.query(path, commit=commit, file=entry.path)}"
    return Response(status_code=302, headers={**headers, "ETag": f'"{entry.oid}"', "Location": location})


def cdn(call: Call) -> Response:
    """An LFS object. The signature is the right to it."""
    claims = call.hub.signer.check(call.request.url.path, call.query)
    oid = call.params["oid"]
    path = call.hub.store.lfs(call.repo).path(oid)
    if not path.is_file():
        raise Refusal(404, "The object is gone")
    headers = {"X-Repo-Commit": claims["commit"], "Accept-Ranges": "bytes", "ETag": f'"{oid}"'}
    headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(path.stat().st_size)}
    return file_response(call.request, path, headers, claims["file"])


HANDLERS = {"tree": tree, "paths-info": paths_info, "resolve": resolve, "cdn": cdn}
