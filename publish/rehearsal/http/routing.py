"""The types of ASGI, and the outermost layer: it matches the route, counts, and adds what every response carries."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from publish.rehearsal.http.request import Quota, Standing, Stats, user_of

# The routes: name, method and pattern, as data. Stats and faults name them as this table does.


_KINDS = "models|datasets|spaces|kernels"
_REPO = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_API = rf"/api/(?P<kind>{_KINDS})/{_REPO}"
_REV = r"(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)"
_PATH = r"(?P<path>.+)"
_WEB = rf"/(?!(?:api|cdn|_lfs|_rehearsal)/)(?:(?P<kind>datasets|spaces|kernels)/)?{_REPO}"
_OBJECT = rf"(?P<kind>{_KINDS})/{_REPO}/(?P<oid>[0-9a-f]{{64}})"


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    method: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Match:
    """Which route a request takes, with unquoted parameters. ``allowed``: the methods, when only that is wrong."""

    name: str
    params: Mapping[str, str]
    allowed: tuple[str, ...] = ()


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
    _route("lfs-duplicate", "POST", rf"{_API}/lfs-files/duplicate"),
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
RESOLVERS = frozenset({"resolve"})  # the Hub counts these apart from the API
UNCOUNTED = frozenset({"stats", "stats-reset", "cdn", "lfs-upload", "lfs-part"})  # not the Hub's API: its storage


def match(method: str, raw_path: str) -> Match:
    """The route of a request; HEAD is GET. ``unknown`` when there is none."""
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


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN = frozenset({"stats", "stats-reset"})
_FILES = frozenset({"resolve", "cdn"})
_TOO_MANY = (
    "We had to rate limit your IP. To continue using our service, create a HF account or login to your existing "
    "account, and make sure you pass a HF_TOKEN if you're using the API."
)


class Counted:
    """Counts requests and bytes; answers 429 when the quota is enforced and used up.

    Outside fact (facts/hub-protocol.md): X-Request-Id, RateLimit and RateLimit-Policy are on every response.
    """

    def __init__(self, app: App, stats: Stats, quota: Quota) -> None:
        self.app = app
        self.stats = stats
        self.quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"only http is spoken here, not {scope['type']}")
        found = match(scope["method"], scope["raw_path"].decode("latin-1"))
        scope["rehearsal.match"] = found
        headers = dict(scope["headers"])
        user = user_of(headers.get(b"authorization", b"").decode("latin-1"))
        scope["rehearsal.user"] = user
        group = "resolvers" if found.name in RESOLVERS else "api"
        key = user.key if user else "anonymous"
        standing = self.quota.count(key, group, 0 if found.name in UNCOUNTED else 1)
        asked = headers.get(b"x-request-id") or headers.get(b"x-amzn-trace-id") or uuid.uuid4().hex.encode()
        extra = [(b"x-request-id", asked[:200]), *_raw(standing.headers())]
        counted = _Counter(self.stats, found, extra, receive, send)
        if found.name not in _OWN:
            self.stats.request(found.name)
        if standing.exceeded and found.name not in UNCOUNTED:
            await _too_many(standing, counted.send)
            return
        await self.app(scope, counted.receive, counted.send)


class _Counter:
    def __init__(
        self, stats: Stats, found: Match, extra: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> None:
        self._stats, self._route, self._extra = stats, found.name, extra
        self._receive, self._send = receive, send
        params = found.params
        kind = params.get("kind", "models")
        name = f"{params.get('owner')}/{params.get('name')}"
        self._repo = (name if kind == "models" else f"{kind}/{name}") if found.name in _FILES else None

    async def receive(self) -> Message:
        message = await self._receive()
        if (body := message.get("body")) and self._route not in _OWN:
            self._stats.received(self._route, len(body))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self._extra]}
        elif (body := message.get("body")) and self._route not in _OWN:
            self._stats.sent(self._route, self._repo, len(body))
        await self._send(message)


async def _too_many(standing: Standing, send: Send) -> None:
    content = json.dumps({"error": _TOO_MANY}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += _raw({"x-error-message": _TOO_MANY, "retry-after": str(standing.seconds_left)})
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
