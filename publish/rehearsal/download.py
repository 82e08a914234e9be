"""Bytes on their way out: whole or a range of them, in chunks, never as something a browser would run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from publish.rehearsal.refusals import Refusal

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
