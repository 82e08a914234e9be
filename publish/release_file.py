"""The release file: what is released, from where, to where. Unknown keys are refused, and errors name the line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from publish.dtypes import WEIGHT_DTYPES
from publish.errors import ReleaseError, ScheduleError
from publish.schedule import FROM_CONFIG, NAMED, parse_steps


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What somebody measured elsewhere on the final step; a card says so."""

    task: str
    dataset: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class CardMetadata:
    """What the maintainer says about the model; figures of the run never come from here.

    ``notes`` is Markdown, ``citation`` BibTeX, ``errata`` one sentence for each item.
    """

    title: str
    license: str = "apache-2.0"
    language: tuple[str, ...] = ("en",)
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    notes: str = ""
    citation: str = ""
    errata: tuple[str, ...] = ()
    base_model: str | None = None
    base_model_relation: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    results: tuple[EvaluationResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectedEqual:
    """Steps whose weights are equal, and why."""

    steps: tuple[int, ...]
    because: str


@dataclass(frozen=True, slots=True)
class ExpectedJump:
    """Steps at which the weights jump, and why."""

    steps: tuple[int, ...]
    because: str


@dataclass(frozen=True, slots=True)
class Override:
    """A value that ``config.json`` holds instead of the run's own, and why."""

    key: str
    value: Any
    because: str


@dataclass(frozen=True, slots=True)
class WantedComparison:
    """A step to be compared with the model at a location; the card shows what was found."""

    step: int
    other: str


@dataclass(frozen=True, slots=True)
class Release:
    """One release. ``schedule`` is a name or a list of steps; ``base`` is what relative paths start from.

    ``dtype`` is what weights are cast to; None keeps their own.
    ``commits_per_hour`` is the quota of commits to the target; None means the Hub's.
    """

    source: str
    target: str
    card: CardMetadata
    schedule: str | tuple[int, ...] = FROM_CONFIG
    tokenizer: str | None = None
    dtype: str | None = None
    overrides: tuple[Override, ...] = ()
    expect: tuple[ExpectedEqual, ...] = ()
    jumps: tuple[ExpectedJump, ...] = ()
    compare: tuple[WantedComparison, ...] = ()
    commits_per_hour: int | None = None
    where: str = "the command line"
    base: Path = Path()

    def expected_jump(self, step: int) -> bool:
        """Whether the release says that the weights jump at this step."""
        return any(step in jump.steps for jump in self.jumps)

    def expected_equal(self, one: int, other: int) -> bool:
        """Whether the release says that these two steps hold the same weights."""
        return any(one in expected.steps and other in expected.steps for expected in self.expect)

    def equals(self, step: int) -> frozenset[int]:
        """The other steps that the release says hold the same weights as this one."""
        return frozenset(other for equal in self.expect if step in equal.steps for other in equal.steps) - {step}


def read_release(path: Path) -> Release:
    """The release that ``path`` describes.

    Raises:
        ReleaseError: unreadable, invalid YAML, unknown or missing keys, values of the wrong kind; with the line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"cannot read the release file: {error}", path, "make one with: publish init LOCATION"
        ) from error
    return parse_release(text, str(path), path.parent)


def parse_release(text: str, where: str, base: Path = Path()) -> Release:
    """As :func:`read_release`, from the file's text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ReleaseError(f"not valid YAML: {error.problem}", f"{where}, line {line}", "fix this line") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ReleaseError(f"not valid YAML: {error}", where, "fix the file") from error
    values = as_mapping(node, _TOP, where, required=("source", "target"))
    card = values.pop("card", None) or CardMetadata(title=values["target"].split("/")[-1])
    expect = values.pop("expect", ())
    return Release(
        **values,
        card=card,
        expect=tuple(item for item in expect if isinstance(item, ExpectedEqual)),
        jumps=tuple(item for item in expect if isinstance(item, ExpectedJump)),
        where=where,
        base=base,
    )


# Readers: the value of a YAML node, or an error with its line.

Readers = Mapping[str, Callable[[yaml.Node, str], Any]]


def place_of(where: str, node: yaml.Node | None) -> str:
    """The place of ``node`` as an error names it."""
    return f"{where}, line {node.start_mark.line + 1}" if node is not None else where


def as_mapping(
    node: yaml.Node | None,
    keys: Readers,
    where: str,
    required: tuple[str, ...],
) -> dict[str, Any]:
    """The values of a mapping, read by the reader of their key."""
    if not isinstance(node, yaml.MappingNode):
        raise ReleaseError(
            "expected a mapping", place_of(where, node), f"write key: value lines; the keys are {', '.join(keys)}"
        )
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in keys:
            raise ReleaseError(f"unknown key {name!r}", place_of(where, key), f"the keys here are {', '.join(keys)}")
        if name in values:
            raise ReleaseError(f"{name} is given twice", place_of(where, key), "keep one")
        values[name] = keys[name](value, where)
    if missing := [name for name in required if name not in values]:
        raise ReleaseError(f"{missing[0]} is missing", place_of(where, node), f"add the line {missing[0]}: ...")
    return values


def as_text(node: yaml.Node, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise ReleaseError(
            "expected a text", place_of(where, node), "write a text, in quotes if it has special characters"
        )
    return str(node.value)


def as_texts(node: yaml.Node, where: str) -> tuple[str, ...]:
    """A list of texts, or one."""
    if isinstance(node, yaml.ScalarNode):
        return (as_text(node, where),)
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("expected a list of texts", place_of(where, node), "write [a, b]")
    return tuple(as_text(item, where) for item in node.value)


def as_steps(node: yaml.Node, where: str) -> tuple[int, ...]:
    """Steps, ascending, each once."""
    listed = node.value if isinstance(node, yaml.SequenceNode) else ()
    if not listed or not all(isinstance(item, yaml.ScalarNode) and item.value.isdecimal() for item in listed):
        raise ReleaseError("expected a list of steps", place_of(where, node), "write [0, 1, 512]")
    return tuple(sorted({int(item.value) for item in listed}))


def as_count(node: yaml.Node, where: str) -> int:
    """A number above 0."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal() or int(node.value) == 0:
        raise ReleaseError("expected a whole number above 0", place_of(where, node), "write 128")
    return int(node.value)


def as_items(node: yaml.Node, where: str, example: str) -> list[yaml.Node]:
    """The items of a list; ``example`` is one as it could be written."""
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("expected a list", place_of(where, node), f"write items such as - {example}")
    return list(node.value)


def as_step(node: yaml.Node, where: str) -> int:
    """One step."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal():
        raise ReleaseError("expected a step", place_of(where, node), "write a whole number")
    return int(node.value)


def as_scalar(node: yaml.Node, where: str) -> Any:
    """A text, a number, true or false."""
    value = yaml.SafeLoader("").construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(value, str | int | float | bool):
        raise ReleaseError("expected a single value", place_of(where, node), "write a text, a number, true or false")
    return value


def as_number(node: yaml.Node, where: str) -> float:
    """A finite number."""
    given = as_text(node, where)
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ReleaseError(f"{given!r} is not a number", place_of(where, node), "write a number such as 0.5")
    return value


def _repo(node: yaml.Node, where: str) -> str:
    text = as_text(node, where)
    if text.count("/") != 1:
        raise ReleaseError(f"{text!r} is not a repository name", place_of(where, node), "write owner/name")
    return text


def _schedule(node: yaml.Node, where: str) -> str | tuple[int, ...]:
    if isinstance(node, yaml.SequenceNode):
        return as_steps(node, where)
    try:
        return schedule_named(as_text(node, where))
    except ScheduleError as error:
        raise ReleaseError(error.what, place_of(where, node), error.fix) from error


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
            f"unknown schedule {text!r}", f"schedule {text!r}", f"write {names}, or a list of steps"
        ) from error


def _card(node: yaml.Node, where: str) -> CardMetadata:
    return CardMetadata(**as_mapping(node, _CARD, where, required=("title",)))


def _expect(node: yaml.Node, where: str) -> tuple[ExpectedEqual | ExpectedJump, ...]:
    return tuple(_expected(item, where) for item in as_items(node, where, "{equal: [0, 1], because: ...}"))


def _expected(node: yaml.Node, where: str) -> ExpectedEqual | ExpectedJump:
    value = as_mapping(node, _EXPECT, where, required=("because",))
    if ("equal" in value) == ("jump" in value):
        fix = "write equal: [0, 1], or jump: [512]"
        raise ReleaseError("expected either equal or jump", place_of(where, node), fix)
    if "equal" in value:
        return ExpectedEqual(value["equal"], value["because"])
    return ExpectedJump(value["jump"], value["because"])


def _comparisons(node: yaml.Node, where: str) -> tuple[WantedComparison, ...]:
    items = as_items(node, where, "{step: 0, with: owner/name@step0}")
    values = [as_mapping(item, _COMPARE, where, required=("step", "with")) for item in items]
    return tuple(WantedComparison(value["step"], value["with"]) for value in values)


def _overrides(node: yaml.Node, where: str) -> tuple[Override, ...]:
    if not isinstance(node, yaml.MappingNode):
        raise ReleaseError("expected a mapping", place_of(where, node), "write hidden_act: {value: gelu, because: ...}")
    found = []
    for key, value in node.value:
        given = as_mapping(value, _OVERRIDE, where, required=("value", "because"))
        found.append(Override(str(key.value), given["value"], given["because"]))
    return tuple(found)


def _dtype(node: yaml.Node, where: str) -> str:
    if (text := as_text(node, where)) not in WEIGHT_DTYPES:
        raise ReleaseError(
            f"unknown dtype {text!r}", place_of(where, node), f"use {', '.join(WEIGHT_DTYPES)}, or remove the line"
        )
    return text


def _results(node: yaml.Node, where: str) -> tuple[EvaluationResult, ...]:
    example = "{task: text-generation, dataset: owner/name, metric: acc, value: 0.5}"
    given = (as_mapping(item, _RESULT, where, required=tuple(_RESULT)) for item in as_items(node, where, example))
    return tuple(EvaluationResult(**values) for values in given)


_TOP: Readers = {
    "source": as_text,
    "target": _repo,
    "schedule": _schedule,
    "tokenizer": as_text,
    "card": _card,
    "expect": _expect,
    "commits_per_hour": as_count,
    "compare": _comparisons,
    "overrides": _overrides,
    "dtype": _dtype,
}
_CARD: Readers = {
    "title": as_text,
    "license": as_text,
    "language": as_texts,
    "datasets": as_texts,
    "tags": as_texts,
    "papers": as_texts,
    "notes": as_text,
    "citation": as_text,
    "errata": as_texts,
    "base_model": _repo,
    "base_model_relation": as_text,
    "license_name": as_text,
    "license_link": as_text,
    "results": _results,
}
_RESULT: Readers = {
    "task": as_text,
    "dataset": as_text,
    "metric": as_text,
    "value": as_number,
}
_OVERRIDE: Readers = {"value": as_scalar, "because": as_text}
_EXPECT: Readers = {"equal": as_steps, "jump": as_steps, "because": as_text}
_COMPARE: Readers = {"step": as_step, "with": as_text}
