"""release.yaml: what is released, from where, to where. Every key known, every error with its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from publish.errors import ReleaseError, ScheduleError
from publish.schedule import FROM_CONFIG, NAMED, parse_steps


@dataclass(frozen=True, slots=True)
class CardText:
    """What the maintainer says of the model; figures never come from here."""

    title: str
    license: str = "apache-2.0"
    language: tuple[str, ...] = ("en",)
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedEqual:
    """Steps whose weights are equal, and why."""

    steps: tuple[int, ...]
    because: str


@dataclass(frozen=True, slots=True)
class ExpectedJump:
    """Steps at which the weights leave the course of the others, and why."""

    steps: tuple[int, ...]
    because: str


@dataclass(frozen=True, slots=True)
class WantedComparison:
    """A step to be compared with the model at a location; the card shows what was found."""

    step: int
    other: str


@dataclass(frozen=True, slots=True)
class Release:
    """One release. ``schedule`` is a name or a list of steps; ``base`` is what relative paths start from."""

    source: str
    target: str
    card: CardText
    schedule: str | tuple[int, ...] = FROM_CONFIG
    tokenizer: str | None = None
    expect: tuple[ExpectedEqual, ...] = ()
    jumps: tuple[ExpectedJump, ...] = ()
    compare: tuple[WantedComparison, ...] = ()
    where: str = "the command line"
    base: Path = Path()

    def expected_jump(self, step: int) -> bool:
        """Whether the release says that the weights jump at this step."""
        return any(step in each.steps for each in self.jumps)

    def expected_equal(self, one: int, other: int) -> bool:
        """Whether the release says that these two steps hold the same weights."""
        return any(one in expected.steps and other in expected.steps for expected in self.expect)


def read_release(path: Path) -> Release:
    """The release that ``path`` describes.

    Raises:
        ReleaseError: unreadable, invalid YAML, unknown or missing keys, values of the wrong kind; with the line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"cannot read the release file: {error}", path, "make one with: publish init SOURCE"
        ) from error
    return parse_release(text, str(path), path.parent)


def parse_release(text: str, where: str, base: Path = Path()) -> Release:
    """As :func:`read_release`, from the file's text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ReleaseError(f"not valid YAML: {error.problem}", f"{where}, line {line}", "mend that line") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ReleaseError(f"not valid YAML: {error}", where, "mend the file") from error
    values = _mapping(node, _TOP, where, required=("source", "target"))
    card = values.pop("card", None) or CardText(title=values["target"].split("/")[-1])
    expect = values.pop("expect", ())
    return Release(
        **values,
        card=card,
        expect=tuple(each for each in expect if isinstance(each, ExpectedEqual)),
        jumps=tuple(each for each in expect if isinstance(each, ExpectedJump)),
        where=where,
        base=base,
    )


def _at(where: str, node: yaml.Node | None) -> str:
    return f"{where}, line {node.start_mark.line + 1}" if node is not None else where


def _mapping(
    node: yaml.Node | None,
    keys: Mapping[str, Callable[[yaml.Node, str], Any]],
    where: str,
    required: tuple[str, ...],
) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise ReleaseError("a mapping of keys is due here", _at(where, node), f"the keys are {', '.join(keys)}")
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in keys:
            raise ReleaseError(f"unknown key {name!r}", _at(where, key), f"the keys here are {', '.join(keys)}")
        if name in values:
            raise ReleaseError(f"{name} is given twice", _at(where, key), "keep one")
        values[name] = keys[name](value, where)
    if missing := [name for name in required if name not in values]:
        raise ReleaseError(f"{missing[0]} is missing", _at(where, node), f"add the line {missing[0]}: ...")
    return values


def _text(node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise ReleaseError(
            "a text is due here", _at(where, node), "write a text, in quotes if it has special characters"
        )
    return str(node.value)


def _texts(node: yaml.Node, where: str) -> tuple[str, ...]:
    if isinstance(node, yaml.ScalarNode):
        return (_text(node, where),)
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("a list of texts is due here", _at(where, node), "write [a, b]")
    return tuple(_text(item, where) for item in node.value)


def _repo(node: yaml.Node, where: str) -> str:
    text = _text(node, where)
    if text.count("/") != 1:
        raise ReleaseError(f"{text!r} is no repository", _at(where, node), "write owner/name")
    return text


def _schedule(node: yaml.Node, where: str) -> str | tuple[int, ...]:
    if isinstance(node, yaml.SequenceNode):
        return _steps(node, where)
    try:
        return schedule_named(_text(node, where))
    except ScheduleError as error:
        raise ReleaseError(error.what, _at(where, node), error.fix) from error


def schedule_named(text: str) -> str | tuple[int, ...]:
    """A schedule by name, or the steps of a list such as ``0,1,512``.

    Raises:
        ScheduleError: neither.
    """
    if text in NAMED or text == FROM_CONFIG:
        return text
    try:
        return parse_steps(text)
    except ScheduleError as error:
        names = ", ".join((*NAMED, FROM_CONFIG))
        raise ScheduleError(
            f"{text!r} is no schedule", f"schedule {text!r}", f"write {names}, or a list of steps"
        ) from error


def _steps(node: yaml.Node, where: str) -> tuple[int, ...]:
    items = node.value if isinstance(node, yaml.SequenceNode) else ()
    if not items or not all(isinstance(item, yaml.ScalarNode) and item.value.isdecimal() for item in items):
        raise ReleaseError("a list of steps is due here", _at(where, node), "write [0, 1, 512]")
    return tuple(sorted({int(item.value) for item in items}))


def _card(node: yaml.Node, where: str) -> CardText:
    return CardText(**_mapping(node, _CARD, where, required=("title",)))


def _expect(node: yaml.Node, where: str) -> tuple[ExpectedEqual | ExpectedJump, ...]:
    return tuple(_expected(item, where) for item in _items(node, where, "{equal: [0, 1], because: ...}"))


def _expected(node: yaml.Node, where: str) -> ExpectedEqual | ExpectedJump:
    value = _mapping(node, _EXPECT, where, required=("because",))
    kinds = {"equal": ExpectedEqual, "jump": ExpectedJump}
    named = [name for name in kinds if name in value]
    if len(named) != 1:
        raise ReleaseError("one of equal and jump is due here", _at(where, node), "write equal: [0, 1], or jump: [512]")
    return kinds[named[0]](value[named[0]], value["because"])


def _comparisons(node: yaml.Node, where: str) -> tuple[WantedComparison, ...]:
    items = _items(node, where, "{step: 0, with: owner/name@step0}")
    values = [_mapping(item, _COMPARE, where, required=("step", "with")) for item in items]
    return tuple(WantedComparison(value["step"], value["with"]) for value in values)


def _items(node: yaml.Node, where: str, example: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("a list is due here", _at(where, node), f"write - {example}")
    return list(node.value)


def _step(node: yaml.Node, where: str) -> int:
    if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal():
        raise ReleaseError("a step is due here", _at(where, node), "write a number")
    return int(node.value)


def _later(node: yaml.Node, where: str) -> Any:
    raise ReleaseError(
        "this version cannot do that yet, and ignoring it would release something else than you ask for",
        _at(where, node),
        "take the key out, or use a later version of publish",
    )


_TOP: Mapping[str, Callable[[yaml.Node, str], Any]] = {
    "source": _text,
    "target": _repo,
    "schedule": _schedule,
    "tokenizer": _text,
    "card": _card,
    "expect": _expect,
    "compare": _comparisons,
    "overrides": _later,
}
_CARD: Mapping[str, Callable[[yaml.Node, str], Any]] = {
    "title": _text,
    "license": _text,
    "language": _texts,
    "datasets": _texts,
    "tags": _texts,
    "papers": _texts,
    "notes": _text,
}
_EXPECT: Mapping[str, Callable[[yaml.Node, str], Any]] = {"equal": _steps, "jump": _steps, "because": _text}
_COMPARE: Mapping[str, Callable[[yaml.Node, str], Any]] = {"step": _step, "with": _text}
