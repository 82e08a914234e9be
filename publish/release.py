"""release.yaml: what is released, from where, to where. Every key known, every error with its line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from publish import nodes
from publish.cardtext import CardText, EvaluationResult
from publish.errors import ReleaseError, ScheduleError
from publish.nodes import Readers
from publish.schedule import FROM_CONFIG, NAMED, parse_steps

DTYPES = ("float16", "bfloat16", "float32")


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

    ``dtype`` is what weights are cast to; None: they keep their own.
    ``commits_per_hour`` is the quota of commits to the target; None: what the Hub is known for.
    """

    source: str
    target: str
    card: CardText
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
        return any(step in each.steps for each in self.jumps)

    def expected_equal(self, one: int, other: int) -> bool:
        """Whether the release says that these two steps hold the same weights."""
        return any(one in expected.steps and other in expected.steps for expected in self.expect)

    def equals(self, step: int) -> frozenset[int]:
        """The other steps that the release says hold the same weights as this one."""
        return frozenset(other for each in self.expect if step in each.steps for other in each.steps if other != step)


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
    values = nodes.mapping(node, _TOP, where, required=("source", "target"))
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


def _repo(node: yaml.Node, where: str) -> str:
    text = nodes.text(node, where)
    if text.count("/") != 1:
        raise ReleaseError(f"{text!r} is no repository", nodes.at(where, node), "write owner/name")
    return text


def _schedule(node: yaml.Node, where: str) -> str | tuple[int, ...]:
    if isinstance(node, yaml.SequenceNode):
        return nodes.steps(node, where)
    try:
        return schedule_named(nodes.text(node, where))
    except ScheduleError as error:
        raise ReleaseError(error.what, nodes.at(where, node), error.fix) from error


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


def _card(node: yaml.Node, where: str) -> CardText:
    return CardText(**nodes.mapping(node, _CARD, where, required=("title",)))


def _expect(node: yaml.Node, where: str) -> tuple[ExpectedEqual | ExpectedJump, ...]:
    return tuple(_expected(item, where) for item in nodes.items(node, where, "{equal: [0, 1], because: ...}"))


def _expected(node: yaml.Node, where: str) -> ExpectedEqual | ExpectedJump:
    value = nodes.mapping(node, _EXPECT, where, required=("because",))
    if ("equal" in value) == ("jump" in value):
        fix = "write equal: [0, 1], or jump: [512]"
        raise ReleaseError("one of equal and jump is due here", nodes.at(where, node), fix)
    if "equal" in value:
        return ExpectedEqual(value["equal"], value["because"])
    return ExpectedJump(value["jump"], value["because"])


def _comparisons(node: yaml.Node, where: str) -> tuple[WantedComparison, ...]:
    items = nodes.items(node, where, "{step: 0, with: owner/name@step0}")
    values = [nodes.mapping(item, _COMPARE, where, required=("step", "with")) for item in items]
    return tuple(WantedComparison(value["step"], value["with"]) for value in values)


def _overrides(node: yaml.Node, where: str) -> tuple[Override, ...]:
    if not isinstance(node, yaml.MappingNode):
        raise ReleaseError(
            "a mapping is due here", nodes.at(where, node), "write hidden_act: {value: gelu, because: ...}"
        )
    found = []
    for key, value in node.value:
        given = nodes.mapping(value, _OVERRIDE, where, required=("value", "because"))
        found.append(Override(str(key.value), given["value"], given["because"]))
    return tuple(found)


def _dtype(node: yaml.Node, where: str) -> str:
    if (text := nodes.text(node, where)) not in DTYPES:
        raise ReleaseError(
            f"{text!r} is no dtype", nodes.at(where, node), f"write {', '.join(DTYPES)}, or leave it out"
        )
    return text


def _results(node: yaml.Node, where: str) -> tuple[EvaluationResult, ...]:
    example = "{task: text-generation, dataset: owner/name, metric: acc, value: 0.5}"
    given = (nodes.mapping(item, _RESULT, where, required=tuple(_RESULT)) for item in nodes.items(node, where, example))
    return tuple(EvaluationResult(**each) for each in given)


_TOP: Readers = {
    "source": nodes.text,
    "target": _repo,
    "schedule": _schedule,
    "tokenizer": nodes.text,
    "card": _card,
    "expect": _expect,
    "commits_per_hour": nodes.count,
    "compare": _comparisons,
    "overrides": _overrides,
    "dtype": _dtype,
}
_CARD: Readers = {
    "title": nodes.text,
    "license": nodes.text,
    "language": nodes.texts,
    "datasets": nodes.texts,
    "tags": nodes.texts,
    "papers": nodes.texts,
    "notes": nodes.text,
    "citation": nodes.text,
    "errata": nodes.texts,
    "base_model": _repo,
    "base_model_relation": nodes.text,
    "license_name": nodes.text,
    "license_link": nodes.text,
    "results": _results,
}
_RESULT: Readers = {
    "task": nodes.text,
    "dataset": nodes.text,
    "metric": nodes.text,
    "value": nodes.number,
}
_OVERRIDE: Readers = {"value": nodes.scalar, "because": nodes.text}
_EXPECT: Readers = {"equal": nodes.steps, "jump": nodes.steps, "because": nodes.text}
_COMPARE: Readers = {"step": nodes.step, "with": nodes.text}
