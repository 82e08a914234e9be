"""Faults on demand: rules that delay, refuse, drop, cut, corrupt or slow down chosen requests.

docs/rehearsal-hub.md describes the rules. :class:`FaultInjector` is the ASGI layer that carries them out.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.routes import NAMES, UNKNOWN, App, Match, Message, Receive, Scope, Send, raw_headers

_HOUR = 3600.0
_FIX = "see the faults format in docs/rehearsal-hub.md"
_REGEX_SIGNS = re.compile(r"[/\\^$.*+?()\[\]|]")
_THROTTLED_CHUNK = 16 << 10


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault: the requests that it matches, on which of them it fires, and its effects."""

    route: str  # a route's name, or a regular expression that is searched in the raw path
    method: str | None = None
    # when it fires
    nth: int | None = None  # from the nth match on, `count` times; once without `count`
    count: int | None = None
    every: int | None = None
    # effects
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | Mapping[str, Any] | None = None
    after: bool = False  # apply the request first, then answer with `status`
    delay: float = 0.0  # seconds
    drop: str | None = None  # before or after
    truncate: int | None = None  # bytes
    corrupt: bool = False
    throttle: float | None = None  # bytes a second
    commits_per_hour: int | None = None

    def matches(self, route: str, method: str, raw_path: str) -> bool:
        if self.method is not None and self.method != method:
            return False
        if self.route in NAMES or self.route == UNKNOWN:
            return route == self.route
        return re.search(self.route, raw_path) is not None

    def fires(self, number: int) -> bool:
        """Whether the rule fires on its ``number``-th match, counted from 1."""
        if self.every is not None:
            turn, rest = divmod(number, self.every)
            return rest == 0 and (self.count is None or turn <= self.count)
        first = self.nth or 1
        count = self.count if self.count is not None else (1 if self.nth else None)
        return number >= first and (count is None or number < first + count)


def load_rules(faults: Path | Sequence[Rule | Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    """Rules from a YAML or JSON file, or from records or mappings.

    Raises:
        RehearsalError: the file cannot be read, or a rule is malformed.
    """
    if faults is None:
        return ()
    if not isinstance(faults, Path):
        return parse_rules(faults, "the faults given")
    try:
        text = faults.read_text(encoding="utf-8")
        document = json.loads(text) if faults.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise RehearsalError(f"cannot read the faults file: {error.strerror}", faults, "check the path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RehearsalError(f"the faults file is not valid YAML or JSON: {error}", faults, _FIX) from error
    return parse_rules(document if document is not None else [], str(faults))


def parse_rules(document: object, where: str) -> tuple[Rule, ...]:
    """A list of rules, checked.

    Raises:
        RehearsalError: a rule is malformed; the error has its number, counted from 1.
    """
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise RehearsalError("expected a list of rules", where, _FIX)
    return tuple(
        rule if isinstance(rule, Rule) else _parse_rule(rule, f"{where}, rule {number}")
        for number, rule in enumerate(document, 1)
    )


def _parse_rule(document: object, where: str) -> Rule:
    if not isinstance(document, Mapping):
        raise RehearsalError(f"expected a mapping, got {document!r}", where, _FIX)
    known = [option.name for option in fields(Rule)]
    if unknown := sorted(set(map(str, document)) - set(known)):
        raise RehearsalError(f"unknown keys {', '.join(unknown)}", where, f"use some of {', '.join(known)}")
    values = dict(document)
    if values.get("commits_per_hour") is not None:
        values.setdefault("route", "commit")
    for name, value in values.items():
        if expected := _expected(name, value):
            raise RehearsalError(f"{name} must be {expected}, got {value!r}", where, _FIX)
    if "route" not in values:
        fix = f"add route: one of {', '.join(sorted(NAMES))}, or a regular expression"
        raise RehearsalError("the rule has no route", where, fix)
    if isinstance(values.get("headers"), Mapping):
        values["headers"] = {str(name): str(value) for name, value in values["headers"].items()}
    rule = Rule(**values)
    if rule.after and rule.status is None:
        raise RehearsalError("after needs a status to answer with", where, "add status, or use drop: after")
    if rule.every is not None and rule.nth is not None:
        raise RehearsalError("every and nth exclude each other", where, "remove one of them")
    return rule


def _expected(name: str, value: object) -> str | None:
    """What a value must be; None when it is right."""
    match name:
        case "route":
            return _expected_route(value)
        case "method":
            return None if isinstance(value, str) and value.isupper() else "a method in capitals"
        case "drop":
            return None if value in ("before", "after") else "before or after"
        case "status":
            return None if _is_int(value, 200) and int(str(value)) <= 599 else "a status from 200 to 599"
        case "after" | "corrupt":
            return None if isinstance(value, bool) else "true or false"
        case "headers":
            return None if isinstance(value, Mapping) else "a mapping"
        case "body":
            return None if isinstance(value, str | Mapping) else "text or a mapping"
        case "delay" | "throttle":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if is_number and float(str(value)) > 0 else "a number above 0"
        case "truncate":
            return None if _is_int(value, 0) else "a number of bytes"
        case _:
            return None if _is_int(value, 1) else "a whole number above 0"


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _expected_route(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return "the name of a route or a regular expression"
    if value in NAMES or value == UNKNOWN:
        return None
    if not _REGEX_SIGNS.search(value):
        return f"a regular expression or one of {', '.join(sorted(NAMES))}"
    try:
        re.compile(value)
    except re.error as error:
        return f"a valid regular expression ({error})"
    return None


class FaultRules:
    """The rules in force, and how often each has matched. ``firing`` is called from the event loop only."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put other rules in force; they count from zero."""
        self._rules = tuple(rules)
        self._matched = [0] * len(rules)

    def firing(self, route: str, method: str, raw_path: str) -> list[Rule]:
        """Count a request, and return the rules that fire on it."""
        firing = []
        matched = self._matched
        for index, rule in enumerate(self._rules):
            if rule.matches(route, method, raw_path):
                matched[index] += 1
                if rule.fires(matched[index]):
                    firing.append(rule)
        return firing


class FaultInjector:
    """The ASGI layer that applies rules. ``now`` is the clock of ``commits_per_hour``, injected.

    Of two rules that fire on one request and have the same effect, the first wins; delays and headers add up.
    """

    def __init__(self, app: App, rules: FaultRules, now: Callable[[], float]) -> None:
        self._app = app
        self._rules = rules
        self._now = now
        self._commits: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found: Match = scope["rehearsal.match"]
        firing = self._rules.firing(found.name, scope["method"], scope["raw_path"].decode("latin-1"))
        if not firing:
            await self._app(scope, receive, send)
            return
        if delay := sum(rule.delay for rule in firing):
            await asyncio.sleep(delay)
        response = _first_response(firing)
        if _first_drop(firing) == "before":
            await _hang_up(scope, receive, abort=True)
        elif response is not None and not response.after:
            await _refuse(response, receive, send)
        elif limit := next((rule.commits_per_hour for rule in firing if rule.commits_per_hour), None):
            await self._limit_commits(limit, firing, scope, receive, send)
        else:
            await _alter(self._app, firing, scope, receive, send)

    async def _limit_commits(
        self, limit: int, firing: Sequence[Rule], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer 429 with the Hub's text once ``limit`` commits were made to the repo within an hour."""
        params = scope["rehearsal.match"].params
        repo = f"{params.get('kind')}/{params.get('owner')}/{params.get('name')}"
        now = self._now()
        recent = [at for at in self._commits.get(repo, []) if now - _HOUR < at <= now]
        if len(recent) >= limit:
            self._commits[repo] = recent
            text = (
                f"You have exceeded the rate limit for repository commits ({limit} per hour). "
                "You can retry this action in about 1 hour."
            )
            await _refuse(Rule("commit", status=429, body={"error": text}), receive, send)
            return
        self._commits[repo] = [*recent, now]
        committed = False

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def watching_send(message: Message) -> None:
                nonlocal committed
                committed = committed or (message["type"] == "http.response.start" and message["status"] == 200)
                await send(message)

            await self._app(scope, receive, watching_send)

        try:
            await _alter(watched, firing, scope, receive, send)
        finally:
            if not committed:  # a commit that the Hub refused does not count, whatever the client was told
                self._commits[repo].remove(now)


def _first_response(firing: Sequence[Rule]) -> Rule | None:
    return next((rule for rule in firing if rule.status is not None), None)


def _first_drop(firing: Sequence[Rule]) -> str | None:
    return next((rule.drop for rule in firing if rule.drop), None)


async def _alter(app: App, firing: Sequence[Rule], scope: Scope, receive: Receive, send: Send) -> None:
    """Let the Hub apply the request, then drop, replace or alter its response."""
    if _first_drop(firing) == "after":
        await app(scope, receive, _discard)
        await _hang_up(scope, receive, abort=True)
    elif (response := _first_response(firing)) is not None:
        await app(scope, receive, _discard)
        await _send_response(response, send)
    else:
        altered = _AlteredBodies(firing, scope, receive, send)
        await app(scope, altered.receive, altered.send)


class _AlteredBodies:
    """Cuts and corrupts the response body, and slows down both bodies."""

    def __init__(self, firing: Sequence[Rule], scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._headers = [header for rule in firing for header in raw_headers(rule.headers)]
        self._left = next((rule.truncate for rule in firing if rule.truncate is not None), None)
        self._corrupt = any(rule.corrupt for rule in firing)
        self._throttle = next((rule.throttle for rule in firing if rule.throttle), None)
        self._cut = False

    async def receive(self) -> Message:
        message = await self._receive()
        if self._throttle and message.get("body"):
            await asyncio.sleep(len(message["body"]) / self._throttle)
        return message

    async def send(self, message: Message) -> None:
        if self._cut:
            return
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": [*message.get("headers", ()), *self._headers]})
            return
        body = bytes(message.get("body", b""))
        if self._corrupt and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        if self._left is not None and len(body) > self._left:
            await self._write(body[: self._left], more=True)
            self._cut = True
            await _hang_up(self._scope, self._receive, abort=False)
            return
        if self._left is not None:
            self._left -= len(body)
        await self._write(body, more=bool(message.get("more_body", False)))

    async def _write(self, body: bytes, *, more: bool) -> None:
        if self._throttle is None:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            return
        for start in range(0, len(body), _THROTTLED_CHUNK):
            chunk = body[start : start + _THROTTLED_CHUNK]
            await asyncio.sleep(len(chunk) / self._throttle)
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not more:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hang_up(scope: Scope, receive: Receive, *, abort: bool) -> None:
    """Close the connection; with ``abort`` without sending what is still buffered."""
    transport = scope["extensions"]["rehearsal"]["transport"]
    if abort:
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(rule: Rule, receive: Receive, send: Send) -> None:
    """Answer in the Hub's place, once the request was read: a client sends before it listens."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    await _send_response(rule, send)


async def _send_response(rule: Rule, send: Send) -> None:
    status = rule.status or 500
    body = rule.body if rule.body is not None else {"error": f"Injected fault: {status}"}
    kind = "application/json" if isinstance(body, Mapping) else "text/html; charset=utf-8"
    content = json.dumps(body).encode() if isinstance(body, Mapping) else body.encode()
    headers = {"content-type": kind, "content-length": str(len(content))}
    if isinstance(body, Mapping) and "error" in body:
        headers["x-error-message"] = str(body["error"]).encode("latin-1", "replace").decode("latin-1")
    headers.update({name.lower(): value for name, value in rule.headers.items()})
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(headers)})
    await send({"type": "http.response.body", "body": content, "more_body": False})


async def _discard(message: Message) -> None:
    """Take a response that the client must not see."""
