"""The ASGI middleware that carries out the rules of :mod:`faults`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from publish.rehearsal.asgi import App, Message, Receive, Scope, Send
from publish.rehearsal.faults import HOUR, Faults, Rule
from publish.rehearsal.routes import Match

_SLICE = 16 << 10  # how finely a throttled body is cut


@dataclass(frozen=True, slots=True)
class _Effects:
    """The rules that fire on one request, merged."""

    rules: tuple[Rule, ...]

    def first(self, name: str) -> Any:
        return next((value for rule in self.rules if (value := getattr(rule, name))), None)

    @property
    def answer(self) -> Rule | None:
        return next((rule for rule in self.rules if rule.status is not None), None)

    @property
    def truncate(self) -> int | None:
        return next((rule.truncate for rule in self.rules if rule.truncate is not None), None)


class FaultInjector:
    """Stands between the server and the Hub. ``now`` is the clock of the commit windows, injected."""

    def __init__(self, app: App, faults: Faults, now: Callable[[], float]) -> None:
        self.app = app
        self.faults = faults
        self.now = now
        self._commits: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match: Match = scope["rehearsal.match"]
        raw_path = scope["raw_path"].decode("latin-1")
        effects = _Effects(tuple(self.faults.firing(match.name, scope["method"], raw_path)))
        if not effects.rules:
            await self.app(scope, receive, send)
            return
        if delay := sum(rule.delay for rule in effects.rules):
            await asyncio.sleep(delay)
        if effects.first("drop") == "before":
            await hang_up(scope, receive, abort=True)
        elif (answer := effects.answer) is not None and not answer.after:
            await _refuse(answer, receive, send)
        elif (limit := effects.first("commits_per_hour")) is not None:
            await self._limited(limit, effects, scope, receive, send)
        else:
            await _altered(self.app, effects, scope, receive, send)

    async def _limited(self, limit: int, effects: _Effects, scope: Scope, receive: Receive, send: Send) -> None:
        """The Hub's quota of commits: a 429 with its text once ``limit`` commits were made within an hour."""
        params = scope["rehearsal.match"].params
        repo = f"{params.get('kind')}/{params.get('owner')}/{params.get('name')}"
        now = self.now()
        recent = [at for at in self._commits.get(repo, []) if now - HOUR < at <= now]
        if len(recent) >= limit:
            self._commits[repo] = recent
            text = (
                f"You have exceeded the rate limit for repository commits ({limit} per hour). "
                "You can retry this action in about 1 hour."
            )
            await _refuse(Rule("commit", status=429, body={"error": text}), receive, send)
            return
        self._commits[repo] = [*recent, now]
        made = False

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def watching(message: Message) -> None:
                nonlocal made
                made = made or (message["type"] == "http.response.start" and message["status"] == 200)
                await send(message)

            await self.app(scope, receive, watching)

        try:
            await _altered(counted, effects, scope, receive, send)
        finally:
            if not made:
                self._commits[repo].remove(now)  # the Hub refused it: it counts for nothing, whatever was answered


async def _altered(app: App, effects: _Effects, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the Hub answer, and spoil the answer on its way."""
    if effects.first("drop") == "after":
        await app(scope, receive, _nowhere)
        await hang_up(scope, receive, abort=True)
    elif (answer := effects.answer) is not None:
        await app(scope, receive, _nowhere)
        await _answer(answer, send)
    else:
        body = _Body(scope, receive, send, effects)
        await app(scope, body.receive, body.send)


class _Body:
    """Spoils bodies: cuts and corrupts what goes out, slows both ways."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, effects: _Effects) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._left = effects.truncate
        self._corrupt = bool(effects.first("corrupt"))
        self._throttle: float | None = effects.first("throttle")
        self._rules = effects.rules
        self._cut = False

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if self._throttle and message.get("body"):
            await asyncio.sleep(len(message["body"]) / self._throttle)
        return message

    async def send(self, message: Message) -> None:
        if self._cut:
            return
        if message["type"] == "http.response.start":
            extra = [pair for rule in self._rules for pair in _raw(rule.headers)]
            await self._send({**message, "headers": [*message.get("headers", ()), *extra]})
            return
        body = bytes(message.get("body", b""))
        if self._corrupt and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        if self._left is not None and len(body) > self._left:
            await self._write(body[: self._left], more=True)
            self._cut = True
            await hang_up(self._scope, self._receive, abort=False)
            return
        if self._left is not None:
            self._left -= len(body)
        await self._write(body, more=bool(message.get("more_body", False)))

    async def _write(self, body: bytes, *, more: bool) -> None:
        if self._throttle is None:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            return
        for start in range(0, len(body), _SLICE):
            piece = body[start : start + _SLICE]
            await asyncio.sleep(len(piece) / self._throttle)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if not more:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def hang_up(scope: Scope, receive: Receive, *, abort: bool) -> None:
    """Close the connection. ``abort``: without sending what is still buffered."""
    transport = scope["extensions"]["rehearsal"]["transport"]
    if abort:
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(rule: Rule, receive: Receive, send: Send) -> None:
    """Answer in the Hub's place, after reading the request: a client sends before it listens."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    await _answer(rule, send)


async def _answer(rule: Rule, send: Send) -> None:
    """The rule's status, headers and body."""
    status = rule.status or 500
    body = rule.body if rule.body is not None else {"error": f"Injected fault: {status}"}
    kind = "application/json" if isinstance(body, Mapping) else "text/html; charset=utf-8"
    content = json.dumps(body).encode() if isinstance(body, Mapping) else body.encode()
    headers = {"content-type": kind, "content-length": str(len(content))}
    if isinstance(body, Mapping) and "error" in body:
        headers["x-error-message"] = str(body["error"]).encode("latin-1", "replace").decode("latin-1")
    headers.update({name.lower(): value for name, value in rule.headers.items()})
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _nowhere(message: Message) -> None:
    """Takes an answer that nobody is to see."""
