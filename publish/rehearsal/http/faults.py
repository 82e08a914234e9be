"""The ASGI middleware that carries out the rules of :mod:`faults`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.routing import NAMES, UNKNOWN, App, Match, Message, Receive, Scope, Send

# Faults on demand: a list of rules that delay, refuse, drop, cut, corrupt or slow chosen requests.


HOUR = 3600.0
_FIX = "see the faults format in docs/rehearsal-hub.md"
_REGEX_SIGNS = re.compile(r"[/\\^$.*+?()\[\]|]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault. Effects that are absent do nothing."""

    route: str
    method: str | None = None
    # when
    nth: int | None = None  # from the nth match on, for `count` matches, 1 unless told
    count: int | None = None
    every: int | None = None
    # what
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | Mapping[str, Any] | None = None
    after: bool = False  # apply the request first, then answer with `status`
    delay: float = 0.0
    drop: str | None = None  # before or after
    truncate: int | None = None
    corrupt: bool = False
    throttle: float | None = None
    commits_per_hour: int | None = None

    def matches(self, route: str, method: str, raw_path: str) -> bool:
        """Whether a request is meant."""
        if self.method is not None and self.method != method:
            return False
        named = self.route in NAMES or self.route == UNKNOWN
        return route == self.route if named else re.search(self.route, raw_path) is not None

    def fires(self, number: int) -> bool:
        """Whether the rule fires on its ``number``-th match, count from 1."""
        if self.every is not None:
            turn, rest = divmod(number, self.every)
            return rest == 0 and (self.count is None or turn <= self.count)
        first = self.nth or 1
        count = self.count if self.count is not None else (1 if self.nth else None)
        return number >= first and (count is None or number < first + count)


class Faults:
    """Rules and how often each has matched. Used from the server's event loop alone, but for :meth:`replace`."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Other rules, counting from zero."""
        self._rules = tuple(rules)
        self._matched = [0] * len(rules)

    def firing(self, route: str, method: str, raw_path: str) -> list[Rule]:
        """Count the request; the rules that fire on it."""
        firing = []
        matched = self._matched
        for index, rule in enumerate(self._rules):
            if rule.matches(route, method, raw_path):
                matched[index] += 1
                if rule.fires(matched[index]):
                    firing.append(rule)
        return firing


def load_faults(faults: Path | Sequence[Rule | Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    """Rules from a YAML or JSON file, or from records or mappings.

    Raises:
        RehearsalError: the file cannot be read, or a rule is none.
    """
    if faults is None:
        return ()
    if not isinstance(faults, Path):
        return parse_rules(faults, "the faults given")
    try:
        text = faults.read_text(encoding="utf-8")
        document = json.loads(text) if faults.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise RehearsalError(f"the faults cannot be read: {error.strerror}", faults, "check the path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RehearsalError(f"no valid YAML or JSON: {error}", faults, _FIX) from error
    return parse_rules(document if document is not None else [], str(faults))


def parse_rules(document: object, where: str) -> tuple[Rule, ...]:
    """A list of rules, checked.

    Raises:
        RehearsalError: naming the rule, count from 1, and what is wrong with it.
    """
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise RehearsalError("the faults are no list of rules", where, _FIX)
    return tuple(
        each if isinstance(each, Rule) else _rule(each, f"{where}, rule {number}")
        for number, each in enumerate(document, 1)
    )


def _rule(document: object, where: str) -> Rule:
    if not isinstance(document, Mapping):
        raise RehearsalError(f"a rule is a mapping, not {document!r}", where, _FIX)
    known = [each.name for each in fields(Rule)]
    if unknown := sorted(set(map(str, document)) - set(known)):
        raise RehearsalError(f"unknown keys {', '.join(unknown)}", where, f"known are {', '.join(known)}")
    values = dict(document)
    if values.get("commits_per_hour") is not None:
        values.setdefault("route", "commit")
    for name, value in values.items():
        if problem := _problem(name, value):
            raise RehearsalError(f"{name} is {value!r}: {problem}", where, _FIX)
    if "route" not in values:
        raise RehearsalError("the rule names no route", where, f"name one of {', '.join(sorted(NAMES))}, or a regex")
    if isinstance(values.get("headers"), Mapping):
        values["headers"] = {str(name): str(value) for name, value in values["headers"].items()}
    rule = Rule(**values)
    if rule.after and rule.status is None:
        raise RehearsalError("after needs a status to answer with", where, "add status, or use drop: after")
    if rule.every is not None and rule.nth is not None:
        raise RehearsalError("every and nth exclude each other", where, "keep one of them")
    return rule


def _problem(name: str, value: object) -> str | None:
    """What is wrong with one value; None when it is right."""
    match name:
        case "route":
            return _route_problem(value)
        case "method":
            return None if isinstance(value, str) and value.isupper() else "a method in capitals is meant"
        case "drop":
            return None if value in ("before", "after") else "before or after is meant"
        case "status":
            return None if _is_int(value, 100) and 200 <= int(str(value)) <= 599 else "a status 200..599 is meant"
        case "after" | "corrupt":
            return None if isinstance(value, bool) else "true or false is meant"
        case "headers":
            return None if isinstance(value, Mapping) else "a mapping is meant"
        case "body":
            return None if isinstance(value, str | Mapping) else "text or a mapping is meant"
        case "delay" | "throttle":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if number and float(str(value)) > 0 else "a number above 0 is meant"
        case "truncate":
            return None if _is_int(value, 0) else "a number of bytes is meant"
        case _:
            return None if _is_int(value, 1) else "a whole number above 0 is meant"


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _route_problem(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return "a route's name or a regular expression is meant"
    if value in NAMES or value == UNKNOWN:
        return None
    if not _REGEX_SIGNS.search(value):
        return f"no such route; there are {', '.join(sorted(NAMES))}"
    try:
        re.compile(value)
    except re.error as error:
        return f"no regular expression: {error}"
    return None


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

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            async def watching(message: Message) -> None:
                nonlocal made
                made = made or (message["type"] == "http.response.start" and message["status"] == 200)
                await send(message)

            await self.app(scope, receive, watching)

        try:
            await _altered(count, effects, scope, receive, send)
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
