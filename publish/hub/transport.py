"""What lies under and around huggingface_hub: the HTTP transport, the client factory, the API object, the exceptions.

Imported when a Client is made and not before, because huggingface_hub takes 0.2 s.

huggingface_hub repeats some calls itself, with real sleeps and at most five times, and others not at all
(docs/hub-protocol.md, "What huggingface_hub retries"). Here every failure that may pass becomes a
:class:`~publish.hub.failures.Transient`, which huggingface_hub does not catch, so that
:meth:`publish.hub.client.Client.call` alone decides about repeating and waiting.
"""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
    validate_repo_id,
)
from huggingface_hub.utils._http import hf_request_event_hook

from publish.errors import HubError, PublishError
from publish.hub.endpoint import Endpoint, Timeouts, origin_of
from publish.hub.failures import RateLimited, Refused, Transient, redact, refusal
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
        number = 0
        if kind != "storage":
            number = state.quota.wait(kind)
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
            state.quota.observe(kind, response.headers, number)
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


# what huggingface_hub raises for an answer that is JSON but not the JSON that it expects
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError)
# what a call into huggingface_hub raises for reasons outside this program
OUTSIDE = (Transient, httpx2.HTTPError, OSError, RuntimeError, EntryNotFoundError, *MALFORMED)

# loggers of headers, bodies and locations at debug level: a server may repeat a token in them
LOUD = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"huggingface_hub.{part}" for part in ("utils._http", "file_download", "lfs", "_commit_api", "hf_api")),
)

_installed = False


class Api(huggingface_hub.HfApi):
    """HfApi whose commits do not validate the card, because `validate_card` does so once for each front matter.

    If huggingface_hub renames the method, it validates the card at every commit; nothing else changes.
    """

    def _validate_yaml(self, content: str, *, repo_type: str | None = None, token: Any = None) -> None:
        return


def install(endpoint: Endpoint) -> None:
    """Make this process's huggingface_hub use our transport, without progress bars and without secrets in its logs.

    huggingface_hub uploads to Xet storage whenever hf_xet is installed, even if the server has none
    (docs/hub-protocol.md, "Xet or LFS"). Only huggingface.co is known to have it; elsewhere we use LFS.
    """
    global _installed
    if not _installed:
        huggingface_hub.set_client_factory(_client)
        disable_progress_bars()
        for name in LOUD:
            logging.getLogger(name).addFilter(_without_secrets)
        # or it asks huggingface.co for a list for its user agent, even in a rehearsal (utils/_detect_agent.py)
        constants.HF_HUB_DISABLE_TELEMETRY = True
        _installed = True
    if not endpoint.official:
        constants.HF_HUB_DISABLE_XET = True


def session() -> httpx2.Client:
    """The one HTTP client of this process."""
    return huggingface_hub.get_session()


def _without_secrets(record: logging.LogRecord) -> bool:
    """A logging filter that redacts every record and drops none."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True


class _Session(httpx2.Client):
    """Sends file objects as `content`: huggingface_hub uploads them as `data`, which httpx2 deprecates."""

    def build_request(self, method: str, url: Any, **arguments: Any) -> httpx2.Request:
        if hasattr(arguments.get("data"), "read"):
            arguments["content"] = arguments.pop("data")
        return super().build_request(method, url, **arguments)


def _client() -> httpx2.Client:
    limits = httpx2.Limits(max_connections=128, max_keepalive_connections=64)
    return _Session(
        transport=Transport(limits=limits),
        event_hooks={"request": [hf_request_event_hook]},
        follow_redirects=True,
        timeout=None,  # the transport sets those of the endpoint
    )


def headers(token: str | None) -> dict[str, str]:
    """The headers of huggingface_hub's own requests."""
    built: dict[str, str] = build_hf_headers(token=token or False)
    return built


def check_repo_id(repo: str) -> None:
    """Raise huggingface_hub's exception for a name that a repo cannot have."""
    validate_repo_id(repo)


def check(response: httpx2.Response) -> None:
    """Raise huggingface_hub's exception for a 4xx or 5xx."""
    hf_raise_for_status(response)


def document(response: httpx2.Response) -> Any:
    """The JSON of an answer.

    Raises:
        Transient: it is not JSON: truncated, of another encoding, nested too deeply, or with numbers too long to parse.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise Transient("the answer is not JSON", where=where_of(response.request, response)) from error


def diagnose(error: BaseException, what: str, endpoint: Endpoint) -> Transient | PublishError | None:
    """What an exception out of huggingface_hub means; None for a bug, which is to be raised as it is."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # "Error while uploading ..." around the reason
    match error:
        case Transient() | PublishError():
            return error
        case json.JSONDecodeError() | UnicodeDecodeError():
            return Transient("the answer is not JSON", where=endpoint.url)
        case HfHubHTTPError():
            return _refused(error, what)
        case EntryNotFoundError():  # a copy's source
            return HubError(f"{what}: {error}", endpoint.url, "run again: the repo is then listed again")
        case HFValidationError():
            return HubError(f"{what}: {error}", endpoint.url, "use a name of the form owner/name")
        case LocalTokenNotFoundError():
            return HubError(f"{what}: no token", endpoint.url, "log in (`hf auth login`) or set HF_TOKEN")
        case OfflineModeIsEnabled():
            return HubError(f"{what}: offline mode is on", endpoint.url, "unset HF_HUB_OFFLINE")
        case httpx2.TimeoutException() | httpx2.NetworkError() | httpx2.RemoteProtocolError():
            return Transient(f"{type(error).__name__}: {error}", where=endpoint.url)
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return HubError(f"{what}: {error}", endpoint.url, "check HF_ENDPOINT")
        case ConnectionError():  # out of hf_xet
            return _xet_failed(error, endpoint)
        case _ if isinstance(error, MALFORMED) and _raised_by_library(error):
            name = type(error).__name__
            return Transient(f"the answer is not what was expected ({name}: {error})", where=endpoint.url)
        case _:
            return None


def _raised_by_library(error: BaseException) -> bool:
    """Whether huggingface_hub's own code raised it; our own code raises such an error only for a bug."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith("huggingface_hub")


def _refused(error: HfHubHTTPError, what: str) -> Refused:
    response = error.response
    code = response.headers.get("x-error-code", "")
    message = error.server_message or response.headers.get("x-error-message") or response.reason_phrase
    return refusal(what, where_of(response.request, response), response.status_code, message, code)


def _xet_failed(error: ConnectionError, endpoint: Endpoint) -> Transient:
    if "404" in str(error):  # on its token route: the server has no Xet
        constants.HF_HUB_DISABLE_XET = True  # the next try uses LFS
    return Transient(f"Xet storage: {error}", where=endpoint.url)
