"""The YAML front matter of a README: how it is read, and how the Hub validates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from publish.cards.metadata import check_metadata


class FrontMatterError(ValueError):
    """The README has front matter that is not a YAML mapping."""


@dataclass(frozen=True, slots=True)
class Card:
    """A README. ``data`` is empty both without front matter and with an empty one; ``found`` tells them apart."""

    data: dict[str, Any]
    text: str
    found: bool


class _Loader(yaml.SafeLoader):
    """YAML without timestamps (a date in a card is text in JSON), which refuses duplicate keys."""

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


def read_card(readme: str) -> Card:
    """Split a README into its front matter and its text.

    Raises:
        FrontMatterError: the front matter does not end, is not valid YAML, or is not a mapping.
    """
    lines = readme.removeprefix("\ufeff").lstrip("\n").splitlines(keepends=True)
    if not lines or lines[0].strip() != "---":
        return Card({}, readme, found=False)
    end = next((index for index, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise FrontMatterError("the metadata block has no closing line ---")
    try:
        data = yaml.load("".join(lines[1:end]), _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontMatterError(" ".join(str(error).split())) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise FrontMatterError("the metadata is not a mapping")
    return Card({str(key): value for key, value in data.items()}, "".join(lines[end + 1 :]), found=True)


def validate_card(readme: str, kind: str = "model") -> tuple[list[str], list[str]]:
    """Errors and warnings of the Hub's validator. ``kind`` is model or dataset."""
    try:
        card = read_card(readme)
    except FrontMatterError as error:
        return [f"Invalid YAML metadata: {error}"], []
    if not card.found or not card.data:
        return [], ["empty or missing yaml metadata in repo card"]
    return check_metadata(card.data, kind)
