"""The rehearsal Hub: a loopback socket, uvicorn in a thread of this process, and the ASGI application.

A request passes :class:`Accounting`, :class:`FaultInjector` and then its handler.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import ipaddress
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, cast

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from publish.rehearsal.api import commits, files, lfs, repos, xet
from publish.rehearsal.errors import HttpError, RehearsalError
from publish.rehearsal.http.context import HubState, RequestContext, Signer, json_response, user_of
from publish.rehearsal.http.faults import FaultInjector, FaultRules, Rule, load_rules
from publish.rehearsal.http.routes import (
    NAMES,
    UNKNOWN,
    Accounting,
    App,
    Match,
    Quota,
    Receive,
    Scope,
    Send,
    Snapshot,
    Stats,
)
from publish.rehearsal.pages import views
from publish.rehearsal.storage.store import RepoStore

_SHUTDOWN_TIMEOUT = 5  # seconds that responses in progress may still take
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?", re.IGNORECASE)
_LARGEST_BODY = 16 << 20
_log = logging.getLogger("publish.rehearsal")

# A plain function runs in a thread and is given the whole body; a coroutine function reads the body itself.
Handler = Callable[[RequestContext], Any]
HANDLERS: Mapping[str, Handler] = {
    **repos.HANDLERS,
    **files.HANDLERS,
    **commits.HANDLERS,
    **lfs.HANDLERS,
    **xet.HANDLERS,
    **views.HANDLERS,
}
if HANDLERS.keys() != NAMES:
    raise RuntimeError(f"routes without handler or handlers without route: {sorted(HANDLERS.keys() ^ NAMES)}")


class RehearsalHub:
    """A Hub on loopback that keeps its repos under ``root``. Start it with ``with``, or :meth:`serve`.

    ``port`` 0 takes any free port. ``faults`` is a file, or rules (docs/rehearsal-hub.md). ``clock`` is the time of
    quotas, commits and expiring URLs. ``namespaces`` maps namespaces to their owners: ``{"EleutherAI": "alice"}``.
    ``api_quota`` and ``resolver_quota`` are announced on every response, and enforced only with ``enforce_quota``. LFS
    files above ``multipart_above`` bytes are uploaded in parts of ``part_size``.

    Raises:
        RehearsalError: ``host`` is not loopback, or the faults are malformed.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        faults: Path | Sequence[Rule | Mapping[str, Any]] | None = None,
        *,
        host: str = "127.0.0.1",
        clock: Callable[[], float] = time.time,
        namespaces: Mapping[str, str] | None = None,
        api_quota: int = 1000,
        resolver_quota: int = 5000,
        enforce_quota: bool = False,
        multipart_above: int = 64 << 20,
        part_size: int = 16 << 20,
    ) -> None:
        self.root = Path(root)
        self.host = _require_loopback(host)
        self.port = port
        self._rules = FaultRules(load_rules(faults))
        self._stats = Stats()
        self._clock = clock
        self._namespaces = dict(namespaces or {})
        self._quota = Quota(api_quota, resolver_quota, enforce_quota, clock)
        self._multipart_above = multipart_above
        self._part_size = part_size
        self._cleanup = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Where it listens. With ``port`` 0 the port is known once it has started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def stats(self) -> Snapshot:
        """What was counted since the start, or since the last reset."""
        return self._stats.snapshot()

    def reset_stats(self) -> None:
        self._stats.reset()

    def inject(self, faults: Path | Sequence[Rule | Mapping[str, Any]] | None) -> None:
        """Replace the faults from now on, and count from zero; None removes them.

        Raises:
            RehearsalError: the faults are malformed.
        """
        self._rules.replace(load_rules(faults))

    def __enter__(self) -> Self:
        """Start.

        Raises:
            RehearsalError: the port is in use, or the folder cannot be used.
        """
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(_listen(self.host, self.port))
            config = uvicorn.Config(
                self._build_app(undo),
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],), name="rehearsal-hub", daemon=True)
            thread.start()
            undo.callback(_stop, server, thread)
            while not server.started:
                if not thread.is_alive():
                    raise RehearsalError("the server did not start", self.url, "see its log")
                time.sleep(0.002)
            self.port = listener.getsockname()[1]
            self._cleanup = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, after one line on stdout with the URL.

        Raises:
            RehearsalError: as for ``with``.
        """
        stop = threading.Event()

        def request_stop(number: int, frame: FrameType | None) -> None:
            stop.set()

        before = {number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                sys.stdout.write(f"listening on {self.url}\n")
                sys.stdout.flush()
                while not stop.wait(1.0):
                    pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _build_app(self, undo: contextlib.ExitStack) -> App:
        store = RepoStore(self.root, self._clock)
        store.open()
        undo.callback(store.close)
        for namespace, user in self._namespaces.items():
            store.claim_namespace(namespace, user)
        signer = Signer(store.secret(), self._clock)
        hub = HubState(store, self._stats, signer, self._clock, self._multipart_above, self._part_size)
        return Accounting(FaultInjector(_application(hub), self._rules, self._clock), self._stats, self._quota)


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the transport in the scope: faults close it without a response."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"rehearsal": {"transport": self.transport}}


def _require_loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address).is_loopback:
            return address
    what = "not loopback: the rehearsal Hub accepts any token, so it listens on this machine only"
    raise RehearsalError(what, host, "use 127.0.0.1")


def _listen(host: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only on a socket that names its protocol; without it a response waits 40 ms for an ACK
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        fix = "stop the program that uses it, or choose another port (0: any free port)"
        what = "the port is in use" if error.errno == errno.EADDRINUSE else f"cannot listen: {error.strerror}"
        raise RehearsalError(what, f"{host}:{port}", fix) from error
    return listener


def _stop(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()


def _application(hub: HubState) -> App:
    """The ASGI application: it finds the handler of a request, and makes errors into responses."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await _respond(hub, request)
        except HttpError as error:
            is_page = scope["rehearsal.match"].name.startswith("page-")
            response = views.error_page(error) if is_page else _error_response(error)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001  # a bug: it is logged with its traceback and answered with 500
            _log.exception("%s %s", scope["method"], scope["raw_path"].decode("latin-1"))
            response = _error_response(
                HttpError(500, "Internal error of the rehearsal Hub; see the traceback in its log")
            )
        await response(scope, receive, send)

    return app


async def _respond(hub: HubState, request: Request) -> Response:
    found: Match = request.scope["rehearsal.match"]
    if not _LOOPBACK.fullmatch(request.headers.get("host", "")):  # DNS must not let a web page elsewhere reach in
        raise HttpError(421, "The rehearsal Hub answers to loopback host names only")
    if found.name == UNKNOWN:
        raise _unknown_route(request, found)
    user = user_of(request.headers.get("authorization", ""))
    context = RequestContext(hub, request, found.params, user)
    handler = HANDLERS[found.name]
    if inspect.iscoroutinefunction(handler):
        return cast("Response", await handler(context))
    context = replace(context, body=await _read_body(request))
    return cast("Response", await run_in_threadpool(handler, context))


def _unknown_route(request: Request, found: Match) -> HttpError:
    path = request.scope["raw_path"].decode("latin-1")
    if found.allowed:
        allowed = ", ".join(found.allowed)
        message = f"{request.method} is not allowed for {path}; use {allowed}"
        return HttpError(405, message, headers={"Allow": allowed})
    return HttpError(404, f"{request.method} {path} is not served by the rehearsal Hub")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise HttpError(413, f"The body of this request may have at most {_LARGEST_BODY} bytes")
    return bytes(body)


def _error_response(error: HttpError) -> Response:
    """An error as the Hub sends it: JSON, X-Error-Message, X-Error-Code."""
    message = "".join(char if 0x20 <= ord(char) < 0x7F else "?" for char in error.message)[:2000]
    headers = {**error.headers, "X-Error-Message": message}
    if error.code:
        headers["X-Error-Code"] = error.code
    return json_response({"error": error.message, **error.extra}, error.status, headers)
