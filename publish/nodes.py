"""Values of a YAML file by kind; what is of another kind is an error that names the line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from publish.errors import ReleaseError

Readers = Mapping[str, Callable[[yaml.Node, str], Any]]


def at(where: str, node: yaml.Node | None) -> str:
    """The place of ``node`` as an error names it."""
    return f"{where}, line {node.start_mark.line + 1}" if node is not None else where


def mapping(
    node: yaml.Node | None,
    keys: Readers,
    where: str,
    required: tuple[str, ...],
) -> dict[str, Any]:
    """The values of a mapping whose keys are those of ``keys``, each read by its own reader."""
    if not isinstance(node, yaml.MappingNode):
        raise ReleaseError("a mapping of keys is due here", at(where, node), f"the keys are {', '.join(keys)}")
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name not in keys:
            raise ReleaseError(f"unknown key {name!r}", at(where, key), f"the keys here are {', '.join(keys)}")
        if name in values:
            raise ReleaseError(f"{name} is given twice", at(where, key), "keep one")
        values[name] = keys[name](value, where)
    if missing := [name for name in required if name not in values]:
        raise ReleaseError(f"{missing[0]} is missing", at(where, node), f"add the line {missing[0]}: ...")
    return values


def text(node: yaml.Node, where: str) -> str:
    """A text that says something."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise ReleaseError(
            "a text is due here", at(where, node), "write a text, in quotes if it has special characters"
        )
    return str(node.value)


def texts(node: yaml.Node, where: str) -> tuple[str, ...]:
    """A list of texts, or one."""
    if isinstance(node, yaml.ScalarNode):
        return (text(node, where),)
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("a list of texts is due here", at(where, node), "write [a, b]")
    return tuple(text(item, where) for item in node.value)


def steps(node: yaml.Node, where: str) -> tuple[int, ...]:
    """Steps, ascending, each once."""
    listed = node.value if isinstance(node, yaml.SequenceNode) else ()
    if not listed or not all(isinstance(item, yaml.ScalarNode) and item.value.isdecimal() for item in listed):
        raise ReleaseError("a list of steps is due here", at(where, node), "write [0, 1, 512]")
    return tuple(sorted({int(item.value) for item in listed}))


def count(node: yaml.Node, where: str) -> int:
    """A number above 0."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal() or int(node.value) == 0:
        raise ReleaseError("a number above 0 is due here", at(where, node), "write 128")
    return int(node.value)


def items(node: yaml.Node, where: str, example: str) -> list[yaml.Node]:
    """The items of a list; ``example`` is one as it could be written."""
    if not isinstance(node, yaml.SequenceNode):
        raise ReleaseError("a list is due here", at(where, node), f"write - {example}")
    return list(node.value)


def step(node: yaml.Node, where: str) -> int:
    """One step."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.isdecimal():
        raise ReleaseError("a step is due here", at(where, node), "write a number")
    return int(node.value)


def scalar(node: yaml.Node, where: str) -> Any:
    """A text, a number, true or false."""
    value = yaml.SafeLoader("").construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(value, str | int | float | bool):
        raise ReleaseError("one value is due here", at(where, node), "write a text, a number, true or false")
    return value


def number(node: yaml.Node, where: str) -> float:
    """A finite number."""
    given = text(node, where)
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ReleaseError(f"{given!r} is no number", at(where, node), "write a number such as 0.5")
    return value
