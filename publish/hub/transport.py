"""The HTTP transport under huggingface_hub: timeouts, quota, request counts, and one kind of failure.

huggingface_hub repeats some calls by itself, with real sleeps and at most five times, and others not at all
(facts/hub-protocol.md, "Who retries what"). Here every failure that another try may cure becomes a
:class:`~publish.wire.failures.Transient`, which huggingface_hub does not catch, so that
:meth:`publish.wire.client.Client.call` alone decides about repeating and waiting.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2

from publish.hub.failures import RateLimited, Timeouts, Transient, origin_of
from publish.hub.rate_limits import RequestQuota, told_wait
from publish.interrupt import Clock, stop_if

# What the calling thread has asked for, by whatever client.


_COMMITS = threading.local()


def commits_of_thread() -> int:
    """Commits that the calling thread has asked for so far, whatever was answered."""
    return getattr(_COMMITS, "sent", 0)


def note_commit() -> None:
    """One more."""
    _COMMITS.sent = commits_of_thread() + 1


# 408 and 5xx as huggingface_hub has them; 520-524 are what a CDN says of an origin that it cannot reach
PASSING = frozenset({408, 500, 502, 503, 504, 520, 521, 522, 523, 524})
EXPIRED = frozenset({401, 403, 404, 410})  # of a signed location to upload to: the next try asks for another one
_PAGES = (".html", ".htm")  # a repo's own; nothing else that we ask for is a page
ID_HEADERS = ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id")


class TransientHTTP(Transient, httpx2.TransportError):
    """A Transient that code outside this package sees as what it is, an HTTP error."""


class RateLimitedHTTP(RateLimited, httpx2.TransportError):
    """A 429, likewise."""


@dataclass(slots=True)
class Lane:
    """What the transport needs to know of one endpoint's client."""

    origin: tuple[str, str, int]
    clock: Clock
    quota: RequestQuota
    timeouts: Timeouts
    interrupt: threading.Event | None = None
    answered: bool = False  # it has answered at least once
    counts: Counter[str] = field(default_factory=Counter)
    received: int = 0  # bytes of bodies, as they came over the wire
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> None:
        with self.lock:
            self.counts[kind] += 1


_LANES: dict[tuple[str, str, int], Lane] = {}


def register(lane: Lane) -> None:
    """From now on, requests to the lane's origin go by its rules; the latest's hold for storage hosts."""
    _LANES.pop(lane.origin, None)  # the latest is last
    _LANES[lane.origin] = lane


def where_of(request: httpx2.Request, response: httpx2.Response | None = None) -> str:
    """Method and URL without its query, and the request id when the server gave one."""
    url = request.url.copy_with(query=None)
    ids = (response.headers.get(name) for name in ID_HEADERS) if response is not None else iter(())
    request_id = next((value for value in ids if value), None)
    return f"{request.method} {url}" + (f" (request id {request_id})" if request_id else "")


class Transport(httpx2.HTTPTransport):
    """Sends one request once."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        origin = origin_of(str(request.url))
        lane = _LANES.get(origin)
        kind = _kind(request.url.path) if lane is not None else "storage"
        if lane is None:
            if not _LANES:
                return super().handle_request(request)
            lane = next(reversed(_LANES.values()))
        stop_if(lane.interrupt)
        if kind != "storage":
            lane.quota.before(kind)
        lane.count(kind)
        if _is_commit(request, kind):
            note_commit()
        request.extensions = {**request.extensions, "timeout": lane.timeouts.as_extension()}
        request.stream = _watched(request.stream, lane)
        try:
            response = super().handle_request(request)
        except httpx2.TransportError as error:
            raise _lost(error, request) from error
        lane.answered = lane.answered or kind != "storage"
        response.stream = _Answer(response.stream, request, lane)
        response.request = request
        if kind != "storage":
            lane.quota.observe(kind, response.headers)
        return _judged(response, request, lane, kind)


def _kind(path: str) -> str:
    # resolver (download) requests have a quota of their own
    return "resolve" if "/resolve/" in path else "api"


def _is_commit(request: httpx2.Request, kind: str) -> bool:
    return "/commit/" in request.url.path and kind == "api"


def _lost(error: httpx2.HTTPError, request: httpx2.Request) -> TransientHTTP:
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    name = type(error).__name__
    return TransientHTTP(f"{name}: {error}" if str(error) else name, where=where_of(request), sent=not unsent)


def _judged(response: httpx2.Response, request: httpx2.Request, lane: Lane, kind: str) -> httpx2.Response:
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
    seconds = told_wait(response.headers, f"{text} {response.text[:2000]}", lane.clock.now())
    commits = _is_commit(request, kind)
    if seconds is not None and not commits:
        lane.quota.hold(kind, seconds)
    raise RateLimitedHTTP(message, where=where, seconds=seconds, commits=commits)


class _Answer(httpx2.SyncByteStream):
    """A response body whose loss is a Transient, and which an interrupt ends."""

    def __init__(self, stream: object, request: httpx2.Request, lane: Lane) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream = stream
        self._request = request
        self._lane = lane

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                stop_if(self._lane.interrupt)
                with self._lane.lock:
                    self._lane.received += len(chunk)
                yield chunk
        except httpx2.TransportError as error:
            raise _lost(error, self._request) from error

    def close(self) -> None:
        self._stream.close()


class _Upload(httpx2.SyncByteStream):
    """A request body that an interrupt ends."""

    def __init__(self, stream: httpx2.SyncByteStream, lane: Lane) -> None:
        self._stream = stream
        self._lane = lane

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            stop_if(self._lane.interrupt)
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _watched(stream: object, lane: Lane) -> httpx2.SyncByteStream:
    assert isinstance(stream, httpx2.SyncByteStream)
    return _Upload(stream, lane)
