"""The route table, and the outermost ASGI layer, which counts by route.

:class:`Accounting` matches the route of a request, counts requests and bytes, and adds ``X-Request-Id``,
``RateLimit`` and ``RateLimit-Policy``, which the Hub sends on every response (docs/hub-protocol.md). Stats and faults
name routes as the table does.
"""

from __future__ import annotations

import json
import math
import re
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    method: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, with unquoted parameters. ``allowed``: other methods that the path has."""

    name: str
    params: Mapping[str, str]
    allowed: tuple[str, ...] = ()


_KINDS = "models|datasets"
_REPO = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_API = rf"/api/(?P<kind>{_KINDS})/{_REPO}"
_REV = r"(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)"
_PATH = r"(?P<path>.+)"
_WEB = rf"/(?!(?:api|cdn|_lfs|_rehearsal)/)(?:(?P<kind>datasets)/)?{_REPO}"
_OBJECT = rf"(?P<kind>{_KINDS})/{_REPO}/(?P<oid>[0-9a-f]{{64}})"


def _route(name: str, method: str, pattern: str) -> Route:
    return Route(name, method, re.compile(pattern))


ROUTES = (
    _route("whoami", "GET", "/api/whoami-v2"),
    _route("create-repo", "POST", "/api/repos/create"),
    _route("delete-repo", "DELETE", "/api/repos/delete"),
    _route("move-repo", "POST", "/api/repos/move"),
    _route("validate-yaml", "POST", "/api/validate-yaml"),
    _route("list-repos", "GET", rf"/api/(?P<kind>{_KINDS})"),
    _route("create-branch", "POST", rf"{_API}/branch/(?P<branch>.+)"),
    _route("delete-branch", "DELETE", rf"{_API}/branch/(?P<branch>.+)"),
    _route("create-tag", "POST", rf"{_API}/tag/{_REV}"),
    _route("delete-tag", "DELETE", rf"{_API}/tag/(?P<tag>.+)"),
    _route("refs", "GET", rf"{_API}/refs"),
    _route("commits", "GET", rf"{_API}/commits/{_REV}"),
    _route("tree", "GET", rf"{_API}/tree/{_REV}(?:/{_PATH}?)?"),
    _route("paths-info", "POST", rf"{_API}/paths-info/{_REV}"),
    _route("preupload", "POST", rf"{_API}/preupload/{_REV}"),
    _route("commit", "POST", rf"{_API}/commit/{_REV}"),
    _route("super-squash", "POST", rf"{_API}/super-squash/{_REV}"),
    _route("settings", "PUT", rf"{_API}/settings"),
    _route("xet-token", "GET", rf"{_API}/xet-(?P<access>read|write)-token/(?P<rev>.+)"),
    _route("auth-check", "GET", rf"{_API}/auth-check"),
    _route("repo-info", "GET", rf"{_API}(?:/revision/{_REV})?"),
    _route("lfs-batch", "POST", rf"{_WEB}\.git/info/lfs/objects/batch"),
    _route("lfs-upload", "PUT", rf"/_lfs/{_OBJECT}"),
    _route("lfs-part", "PUT", rf"/_lfs/{_OBJECT}/part/(?P<part>[0-9]{{1,5}})"),
    _route("lfs-complete", "POST", rf"/_lfs/{_OBJECT}/complete"),
    _route("lfs-verify", "POST", rf"/_lfs/{_OBJECT}/verify"),
    _route("cdn", "GET", rf"/cdn/{_OBJECT}"),
    _route("stats", "GET", "/_rehearsal/stats"),
    _route("stats-reset", "POST", "/_rehearsal/stats/reset"),
    _route("resolve", "GET", rf"{_WEB}/resolve/{_REV}/{_PATH}"),
    _route("no-owner", "GET", rf"/api/(?:{_KINDS})/[^/]+(?:/(?:revision|commits|tree|refs)(?:/.+)?)?"),
    _route("no-owner-file", "GET", r"/(?!_rehearsal/)[^/]+/resolve/.+"),
    _route("page-home", "GET", "/"),
    _route("page-tree", "GET", rf"{_WEB}/tree/{_REV}(?:/{_PATH}?)?"),
    _route("page-file", "GET", rf"{_WEB}/blob/{_REV}/{_PATH}"),
    _route("page-repo", "GET", _WEB),
)
NAMES = frozenset(route.name for route in ROUTES)
UNKNOWN = "unknown"

_NOT_IN_STATS = frozenset({"stats", "stats-reset"})
_FILE_CONTENTS = frozenset({"resolve", "cdn"})
_RESOLVERS = frozenset({"resolve"})  # the Hub has a second quota for them
_WITHOUT_QUOTA = frozenset({"stats", "stats-reset", "cdn", "lfs-upload", "lfs-part"})  # storage, not the Hub's API


def match(method: str, raw_path: str) -> Match:
    """The route of a request; HEAD is matched as GET, and ``unknown`` stands for no route."""
    wanted = "GET" if method == "HEAD" else method
    allowed = []
    for route in ROUTES:
        if (found := route.pattern.fullmatch(raw_path)) is None:
            continue
        if route.method == wanted:
            groups = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
            return Match(route.name, groups)
        allowed.append(route.method)
    return Match(UNKNOWN, {}, tuple(allowed))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment. Bytes are those of bodies; of a download cut short, those that were sent.

    ``bytes_out_by_repo`` has file contents only (routes ``resolve`` and ``cdn``). A dataset is named
    ``datasets/owner/name``. ``commits`` is repo -> branch -> commits.
    """

    requests: Mapping[str, int]
    bytes_in: int
    bytes_out: int
    bytes_in_by_route: Mapping[str, int]
    bytes_out_by_route: Mapping[str, int]
    bytes_out_by_repo: Mapping[str, int]
    commits: Mapping[str, Mapping[str, int]]

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


class Stats:
    """The counters behind a :class:`Snapshot`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._requests: Counter[str] = Counter()
            self._in: Counter[str] = Counter()
            self._out: Counter[str] = Counter()
            self._out_by_repo: Counter[str] = Counter()
            self._commits: dict[str, Counter[str]] = {}

    def add_request(self, route: str) -> None:
        with self._lock:
            self._requests[route] += 1

    def add_received(self, route: str, count: int) -> None:
        with self._lock:
            self._in[route] += count

    def add_sent(self, route: str, repo: str | None, count: int) -> None:
        with self._lock:
            self._out[route] += count
            if repo is not None:
                self._out_by_repo[repo] += count

    def add_commit(self, repo: str, branch: str) -> None:
        with self._lock:
            self._commits.setdefault(repo, Counter())[branch] += 1

    def snapshot(self) -> Snapshot:
        with self._lock:
            commits = {repo: dict(counts) for repo, counts in self._commits.items()}
            maps = (dict(self._in), dict(self._out), dict(self._out_by_repo))
            return Snapshot(dict(self._requests), self._in.total(), self._out.total(), *maps, commits)


WINDOW = 300  # seconds of a quota's fixed window


@dataclass(frozen=True, slots=True)
class QuotaState:
    """How much of its quota a token has left in the current window."""

    group: str
    limit: int
    remaining: int
    seconds_left: int
    exceeded: bool

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit": f'"{self.group}";r={self.remaining};t={self.seconds_left}',
            "RateLimit-Policy": f'"fixed window";"{self.group}";q={self.limit};w={WINDOW}',
        }


class Quota:
    """Requests per token and window, for the API and for resolvers. Safe to share between threads.

    They are announced on every response. A request beyond them is answered with 429 only if they are ``enforced``.
    """

    def __init__(self, api: int, resolvers: int, enforced: bool, now: Callable[[], float]) -> None:
        self._limits = {"api": api, "resolvers": resolvers}
        self._enforced = enforced
        self._now = now
        self._lock = threading.Lock()
        self._windows: dict[tuple[bytes, str], tuple[float, int]] = {}

    def count(self, token: bytes, group: str, requests: int = 1) -> QuotaState:
        """Count requests of a token. A window begins with its first request."""
        limit = self._limits[group]
        with self._lock:
            now = self._now()
            started, used = self._windows.get((token, group), (now, 0))
            if now >= started + WINDOW or now < started:
                started, used = now, 0
            used += requests
            self._windows[token, group] = (started, used)
        left = max(1, math.ceil(started + WINDOW - now))
        return QuotaState(group, limit, max(0, limit - used), left, self._enforced and used > limit)


_TOO_MANY = (
    "We had to rate limit your IP. To continue using our service, create a HF account or login to your existing "
    "account, and make sure you pass a HF_TOKEN if you're using the API."
)


class Accounting:
    """The outermost layer: leaves the match in ``scope["rehearsal.match"]``, counts, and enforces the quota."""

    def __init__(self, app: App, stats: Stats, quota: Quota) -> None:
        self._app = app
        self._stats = stats
        self._quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"expected an http connection, got {scope['type']}")
        found = match(scope["method"], scope["raw_path"].decode("latin-1"))
        scope["rehearsal.match"] = found
        headers = dict(scope["headers"])
        limited = found.name not in _WITHOUT_QUOTA
        group = "resolvers" if found.name in _RESOLVERS else "api"
        quota = self._quota.count(headers.get(b"authorization", b""), group, 1 if limited else 0)
        request_id = headers.get(b"x-request-id") or headers.get(b"x-amzn-trace-id") or uuid.uuid4().hex.encode()
        extra = [(b"x-request-id", request_id[:200]), *raw_headers(quota.headers())]
        repo = _repo_of(found) if found.name in _FILE_CONTENTS else None
        counted = found.name not in _NOT_IN_STATS

        async def counting_receive() -> Message:
            message = await receive()
            if counted and (body := message.get("body")):
                self._stats.add_received(found.name, len(body))
            return message

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            elif counted and (body := message.get("body")):
                self._stats.add_sent(found.name, repo, len(body))
            await send(message)

        if counted:
            self._stats.add_request(found.name)
        if limited and quota.exceeded:
            await _send_too_many(quota, counting_send)
        else:
            await self._app(scope, counting_receive, counting_send)


def _repo_of(found: Match) -> str:
    kind = found.params.get("kind", "models")
    name = f"{found.params['owner']}/{found.params['name']}"
    return name if kind == "models" else f"{kind}/{name}"


async def _send_too_many(quota: QuotaState, send: Send) -> None:
    content = json.dumps({"error": _TOO_MANY}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content))}
    headers |= {"x-error-message": _TOO_MANY, "retry-after": str(quota.seconds_left)}
    await send({"type": "http.response.start", "status": 429, "headers": raw_headers(headers)})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
