"""The files of a revision: trees, information on single paths, and the contents."""

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

from publish.rehearsal.errors import HttpError, bad_request, entry_not_found
from publish.rehearsal.http.context import RequestContext, json_response, page_headers, timestamp
from publish.rehearsal.names import file_path
from publish.rehearsal.storage.git import Entry, GitRepo

_ENTRIES_PER_PAGE = 1000
_EXPANDED_PER_PAGE = 50
_MOST_PATHS = 1000
_CHUNK = 256 << 10
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_IMAGES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}
_TEXTS = frozenset({".md", ".txt", ".json", ".yaml", ".yml", ".py", ".cfg", ".csv", ".html", ".gitattributes", ""})


def list_tree(context: RequestContext) -> Response:
    """The entries of a folder, in pages that ``Link`` connects. A path that is a file gives 404."""
    git = context.open_git()
    commit = git.resolve(context.params["rev"])
    folder = context.params.get("path", "").strip("/")
    entries = git.listing(commit, file_path(folder) if folder else "", recursive=context.flag("recursive"))
    expand = context.flag("expand")
    size = _EXPANDED_PER_PAGE if expand else _ENTRIES_PER_PAGE
    start = _parse_cursor(context.query.get("cursor"))
    page = entries[start : start + size]
    cursor = base64.urlsafe_b64encode(str(start + size).encode()).decode()
    headers = page_headers(context, entries, size, start, {"cursor": cursor})
    return json_response(_describe(git, commit, page, expand=expand), headers={**headers, "X-Repo-Commit": commit})


def paths_info(context: RequestContext) -> Response:
    """The entries of the paths in a form body; paths that do not exist are left out."""
    git = context.open_git()
    commit = git.resolve(context.params["rev"])
    form = parse_qs(context.body.decode("utf-8", errors="replace"), keep_blank_values=True)
    paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    if len(paths) > _MOST_PATHS:
        raise HttpError(413, f"At most {_MOST_PATHS} paths at once")
    entries = []
    for path in paths:
        try:
            entry = git.entry(commit, file_path(path.rstrip("/")))
        except HttpError:  # a path that no repo can have does not exist
            continue
        if entry is not None:
            entries.append(entry)
    return json_response(_describe(git, commit, entries, expand=expand))


def _describe(git: GitRepo, commit: str, entries: Sequence[Entry], *, expand: bool) -> list[dict[str, Any]]:
    """Entries as the API describes them; ``expand`` adds the last commit."""
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


def _parse_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError) as error:
        raise bad_request("Invalid cursor") from error


def resolve(context: RequestContext) -> Response:
    """The content of a file; for an LFS file a redirect to a signed URL that expires.

    The final response has X-Repo-Commit and ETag too, because a client that follows a redirect within one origin reads
    them there.
    """
    repo = context.repo
    context.require_downloadable(repo)
    git = context.hub.store.git(repo)
    commit = git.resolve(context.params["rev"])
    entry = git.entry(commit, file_path(context.params["path"]))
    if entry is None or entry.is_folder:
        raise entry_not_found("Entry not found", commit)
    headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if entry.pointer is None:
        headers["ETag"] = f'"{entry.oid}"'
        return _file_response(context.request, git.blob(entry.oid), headers, entry.path)
    headers |= {"X-Linked-Etag": f'"{entry.pointer.oid}"', "X-Linked-Size": str(entry.size)}
    path = f"/cdn/{repo.kind}/{repo.full_name}/{entry.pointer.oid}"
    location = f"{path}?{context.hub.signer.query(path, commit=commit, file=entry.path)}"
    return Response(status_code=302, headers={**headers, "ETag": f'"{entry.oid}"', "Location": location})


def cdn(context: RequestContext) -> Response:
    """The content of an LFS object, for whoever has the signed URL."""
    claims = context.hub.signer.check(context.request.url.path, context.query)
    oid = context.params["oid"]
    path = context.hub.store.lfs(context.repo).path(oid)
    if not path.is_file():
        raise HttpError(404, "The object does not exist any more")
    headers = {"X-Repo-Commit": claims["commit"], "Accept-Ranges": "bytes", "ETag": f'"{oid}"'}
    headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(path.stat().st_size)}
    return _file_response(context.request, path, headers, claims["file"])


def _file_response(request: Request, content: bytes | Path, headers: Mapping[str, str], path: str) -> Response:
    """200, or 206 for one range; several ranges at once are answered whole. A browser runs nothing of it.

    Raises:
        HttpError: 416 for a range outside the file.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    first, last, status = _parse_range(request.headers.get("range"), size)
    headers = {
        **headers,
        "Content-Length": str(last - first + 1),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    if request.headers.get("if-none-match") == headers.get("ETag") and status == 200:
        headers.pop("Content-Length")
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=_media_type(path))
    if isinstance(content, bytes):
        return Response(content[first : last + 1], status, headers, _media_type(path))
    return StreamingResponse(_read_chunks(content, first, last - first + 1), status, headers, _media_type(path))


def _parse_range(header: str | None, size: int) -> tuple[int, int, int]:
    """First byte, last byte, and the status of the response."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return 0, size - 1, 200
    if found[1]:
        first, last = int(found[1]), int(found[2]) if found[2] else size - 1
        if last < first and found[2]:
            return 0, size - 1, 200  # RFC 9110, 14.1.1: an invalid range is ignored
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first >= size:
        raise HttpError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return first, min(last, size - 1), 206


async def _read_chunks(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    file = await run_in_threadpool(path.open, "rb", 0)
    try:
        await run_in_threadpool(file.seek, start)
        while length > 0:
            chunk = await run_in_threadpool(file.read, min(_CHUNK, length))
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


HANDLERS = {"tree": list_tree, "paths-info": paths_info, "resolve": resolve, "cdn": cdn}
