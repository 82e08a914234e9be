"""The Hub as an ASGI application: every route of the table has its handler here."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from publish.rehearsal.api import commits, files, lfs, refs, repos, xet
from publish.rehearsal.errors import Refusal
from publish.rehearsal.http.request import Call, Hub, answer
from publish.rehearsal.http.routing import NAMES, UNKNOWN, App, Match, Receive, Scope, Send
from publish.rehearsal.pages import pages

Handler = Callable[[Call], Any]

# A plain function is run in a thread with the whole body read; a coroutine function reads the body itself.
HANDLERS: Mapping[str, Handler] = {
    **repos.ACCOUNT_HANDLERS,
    **repos.HANDLERS,
    **refs.HANDLERS,
    **files.HANDLERS,
    **commits.UPLOAD_HANDLERS,
    **commits.HANDLERS,
    **lfs.HANDLERS,
    **xet.HANDLERS,
    **pages.HANDLERS,
}
if HANDLERS.keys() != NAMES:
    raise RuntimeError(f"routes without handler or handlers without route: {sorted(HANDLERS.keys() ^ NAMES)}")

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?", re.IGNORECASE)
_LARGEST_BODY = 16 << 20
_log = logging.getLogger("publish.rehearsal")


def application(hub: Hub) -> App:
    """The ASGI application of a Hub, without accounting and faults."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await _respond(hub, request)
        except Refusal as refusal:
            is_page = scope["rehearsal.match"].name.startswith("page-")
            response = pages.not_found(refusal) if is_page else refused(refusal)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001  # a bug: logged with its traceback, answered 500
            _log.exception("%s %s", scope["method"], scope["raw_path"].decode("latin-1"))
            response = refused(Refusal(500, "Internal error of the rehearsal Hub; its log has the traceback"))
        await response(scope, receive, send)

    return app


async def _respond(hub: Hub, request: Request) -> Response:
    found: Match = request.scope["rehearsal.match"]
    if not _LOOPBACK.fullmatch(request.headers.get("host", "")):  # a web page elsewhere may not reach in by DNS
        raise Refusal(421, "The rehearsal Hub answers to loopback names only")
    if found.name == UNKNOWN:
        raise _unknown(request, found)
    call = Call(hub, request, found.params, request.scope["rehearsal.user"])
    handler = HANDLERS[found.name]
    if inspect.iscoroutinefunction(handler):
        return cast("Response", await handler(call))
    call = replace(call, body=await _whole_body(request))
    return cast("Response", await run_in_threadpool(handler, call))


def _unknown(request: Request, found: Match) -> Refusal:
    path = request.scope["raw_path"].decode("latin-1")
    if found.allowed:
        allowed = ", ".join(found.allowed)
        return Refusal(405, f"{request.method} is not allowed for {path}; {allowed} is", headers={"Allow": allowed})
    return Refusal(404, f"{request.method} {path} is not served by the rehearsal Hub")


async def _whole_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise Refusal(413, f"The body of this request may have at most {_LARGEST_BODY} bytes")
    return bytes(body)


def refused(refusal: Refusal) -> Response:
    """A refusal as the Hub words it: JSON, X-Error-Message, X-Error-Code."""
    headers = {**refusal.headers, "X-Error-Message": _header_text(refusal.message)}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return answer({"error": refusal.message, **refusal.extra}, refusal.status, headers)


def _header_text(text: str) -> str:
    return "".join(char if 0x20 <= ord(char) < 0x7F else "?" for char in text)[:2000]
