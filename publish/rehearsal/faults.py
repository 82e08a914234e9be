"""Faults on demand: a list of rules that delay, refuse, drop, cut, corrupt or slow chosen requests.

The format is in docs/rehearsal-hub.md. A rule matches by route (a name of the table in :mod:`routes`, or a regular
expression on the raw path) and method, counts its matches, and fires on those that ``nth``, ``count`` and ``every``
choose. All rules that fire are merged, the first to name an effect wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from publish.rehearsal.refusals import RehearsalError
from publish.rehearsal.routes import NAMES, UNKNOWN

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
        """Whether the rule fires on its ``number``-th match, counted from 1."""
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
        RehearsalError: naming the rule, counted from 1, and what is wrong with it.
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
