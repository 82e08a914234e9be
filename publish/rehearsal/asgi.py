"""The types of ASGI, and the outermost layer: it matches the route, counts, and adds what every response carries."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from publish.rehearsal.identity import user_of
from publish.rehearsal.quota import Quota, Standing
from publish.rehearsal.routes import RESOLVERS, UNCOUNTED, Match, match
from publish.rehearsal.stats import Stats

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
