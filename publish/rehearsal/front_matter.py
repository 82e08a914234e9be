"""The YAML at the head of a card, read with care: dates stay text, a broken block says where it breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


class FrontMatterError(ValueError):
    """The block is there and is no mapping in YAML."""


@dataclass(frozen=True, slots=True)
class Card:
    """``data`` is empty when the card has no front matter; ``found`` tells those two apart."""

    data: dict[str, Any]
    text: str
    found: bool


class _Loader(yaml.SafeLoader):
    """YAML without timestamps: a date in a card is text to JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicated mapping key {key.value}", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_card(card: str) -> Card:
    """Front matter and text of a card.

    Raises:
        FrontMatterError: the block does not end, is no YAML, or no mapping.
    """
    lines = card.removeprefix("\ufeff").lstrip("\n").splitlines(keepends=True)
    if not lines or lines[0].strip() != "---":
        return Card({}, card, found=False)
    end = next((index for index, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise FrontMatterError("the metadata block does not end: a line --- is missing")
    try:
        data = yaml.load("".join(lines[1:end]), _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontMatterError(" ".join(str(error).split())) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise FrontMatterError("the metadata is no mapping")
    return Card({str(key): value for key, value in data.items()}, "".join(lines[end + 1 :]), found=True)
