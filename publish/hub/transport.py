"""The HTTP transport under huggingface_hub: timeouts, quotas, request counts, and one kind of failure.

huggingface_hub repeats some calls itself, with real sleeps and at most five times, and others not at all
(docs/hub-protocol.md, "What huggingface_hub retries"). Here every failure that may pass becomes a
:class:`~publish.hub.failures.Transient`, which huggingface_hub does not catch, so that
:meth:`publish.hub.client.Client.call` alone decides about repeating and waiting.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2

from publish.hub.endpoint import Timeouts, origin_of
from publish.hub.failures import RateLimited, Transient
from publish.hub.rate_limits import RequestQuota, retry_after
from publish.interrupt import Clock, stop_if

# 408 and 5xx as in huggingface_hub; 520-524 are a CDN's, for an origin that it cannot reach
PASSING = frozenset({408, 500, 502, 503, 504, 520, 521, 522, 523, 524})
EXPIRED = frozenset({401, 403, 404, 410})  # of a signed location to upload to: the next try asks for another one
_PAGES = (".html", ".htm")  # a repo's own files; nothing else that is asked for is an HTML page
_ID_HEADERS = ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id")


class TransientHTTP(Transient, httpx2.TransportError):
    """A Transient that code outside this package sees as an HTTP error."""


class RateLimitedHTTP(RateLimited, httpx2.TransportError):
    """A RateLimited that code outside this package sees as an HTTP error."""


@dataclass(slots=True)
class EndpointState:
    """What the transport knows of one endpoint: how to use it, whether it has answered, and what was counted."""

    origin: tuple[str, str, int]
    clock: Clock
    quota: RequestQuota
    timeouts: Timeouts
    stop: threading.Event | None = None
    answered: bool = False  # any request, so far
    requests: Counter[str] = field(default_factory=Counter)
    received: int = 0  # bytes of bodies, as transferred
    lock: threading.Lock = field(default_factory=threading.Lock)


_endpoints: dict[tuple[str, str, int], EndpointState] = {}
_thread = threading.local()


def register(state: EndpointState) -> None:
    """Use `state` for requests to its origin from now on, and for storage hosts until another one is registered."""
    _endpoints.pop(state.origin, None)  # so that the latest is last
    _endpoints[state.origin] = state


def commits_of_thread() -> int:
    """Commits that the calling thread has sent so far, whatever was answered."""
    return getattr(_thread, "commits", 0)


def where_of(request: httpx2.Request, response: httpx2.Response | None = None) -> str:
    """Method and URL without its query, and the request id if the server gave one."""
    url = request.url.copy_with(query=None)
    ids = (response.headers.get(name) for name in _ID_HEADERS) if response is not None else iter(())
    request_id = next((value for value in ids if value), None)
    return f"{request.method} {url}" + (f" (request id {request_id})" if request_id else "")


class Transport(httpx2.HTTPTransport):
    """Sends one request once."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        state = _endpoints.get(origin_of(str(request.url)))
        kind = _kind(request.url.path) if state is not None else "storage"
        if state is None:
            if not _endpoints:
                return super().handle_request(request)
            state = next(reversed(_endpoints.values()))
        stop_if(state.stop)
        if kind != "storage":
            state.quota.wait(kind)
        with state.lock:
            state.requests[kind] += 1
        if _is_commit(request, kind):
            _thread.commits = commits_of_thread() + 1
        request.extensions = {**request.extensions, "timeout": state.timeouts.as_extension()}
        request.stream = _RequestBody(request.stream, state)
        try:
            response = super().handle_request(request)
        except httpx2.TransportError as error:
            raise _lost(error, request) from error
        state.answered = state.answered or kind != "storage"
        response.stream = _ResponseBody(response.stream, request, state)
        response.request = request
        if kind != "storage":
            state.quota.observe(kind, response.headers)
        return _checked(response, request, state, kind)


def _kind(path: str) -> str:
    # downloads have a quota of their own
    return "resolve" if "/resolve/" in path else "api"


def _is_commit(request: httpx2.Request, kind: str) -> bool:
    return "/commit/" in request.url.path and kind == "api"


def _lost(error: httpx2.TransportError, request: httpx2.Request) -> TransientHTTP:
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    name = type(error).__name__
    return TransientHTTP(f"{name}: {error}" if str(error) else name, where=where_of(request), sent=not unsent)


def _checked(response: httpx2.Response, request: httpx2.Request, state: EndpointState, kind: str) -> httpx2.Response:
    """The response, unless it is a failure that may pass: that is raised as a Transient."""
    status = response.status_code
    html = response.headers.get("content-type", "").lower().startswith("text/html")
    if status == 200 and html and not request.url.path.endswith(_PAGES):
        response.close()
        raise TransientHTTP("an HTML page instead of an answer", where=where_of(request, response), status=status)
    expired = status in EXPIRED and (request.method == "PUT" or (kind == "storage" and request.method == "POST"))
    if status != 429 and status not in PASSING and not expired:
        return response
    response.read()
    text = response.headers.get("x-error-message") or ("" if html else response.text[:500])
    message = f"HTTP {status} {text}".strip()
    where = where_of(request, response)
    response.close()
    if status != 429:
        raise TransientHTTP(message, where=where, status=status)
    seconds = retry_after(response.headers, f"{text} {response.text[:2000]}", state.clock.now())
    commits = _is_commit(request, kind)
    if seconds is not None and not commits:
        state.quota.hold(kind, seconds)
    raise RateLimitedHTTP(message, where=where, seconds=seconds, commits=commits)


class _ResponseBody(httpx2.SyncByteStream):
    """A response body that is counted, whose loss is a Transient, and which the stop event ends."""

    def __init__(self, stream: object, request: httpx2.Request, state: EndpointState) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream = stream
        self._request = request
        self._state = state

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                stop_if(self._state.stop)
                with self._state.lock:
                    self._state.received += len(chunk)
                yield chunk
        except httpx2.TransportError as error:
            raise _lost(error, self._request) from error

    def close(self) -> None:
        self._stream.close()


class _RequestBody(httpx2.SyncByteStream):
    """A request body that the stop event ends."""

    def __init__(self, stream: object, state: EndpointState) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream = stream
        self._state = state

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            stop_if(self._state.stop)
            yield chunk

    def close(self) -> None:
        self._stream.close()
