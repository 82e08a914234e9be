"""The YAML files that together are a training config: read, checked for contradictions, merged."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from publish.errors import ConfigError
from publish.source.files import CheckpointFiles

_MAX_BYTES = 1 << 18


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads ``1e-8`` as a number, as GPT-NeoX's users mean it, and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are not used in training configs", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = normal(str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def normal(name: str) -> str:
    """An option's name with underscores."""
    return name.strip().replace("-", "_")


@functools.lru_cache(maxsize=32)
def load(text: bytes, where: str) -> Mapping[str, Any]:
    """One YAML file's options, names with underscores.

    Raises:
        ConfigError: not valid YAML (with line and column), no mapping, a key twice.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"a config of {len(text):,} bytes", where, "a training config is a few kilobytes")
    try:
        tree = yaml.load(text.decode("utf-8"), Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        spot = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(
            f"not valid YAML: {error.problem}",
            spot,
            "mend that line (a missing comma in the line above is usual)",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where, "mend the file") from error
    if not isinstance(tree, dict):
        raise ConfigError("no options in this file", where, "a training config is a mapping of options")
    return MappingProxyType({normal(str(name)): value for name, value in tree.items()})


def config_files(files: CheckpointFiles) -> dict[str, bytes]:
    """The YAML files of a checkpoint: those in ``configs/``, else those at its root."""
    yamls = [name for name in files.sizes if name.endswith((".yml", ".yaml"))]
    inside = [name for name in yamls if name.startswith("configs/") and name.count("/") == 1]
    chosen = inside or [name for name in yamls if "/" not in name]
    return {name: bytes(files.open(name).read(0, min(files.sizes[name], _MAX_BYTES + 1))) for name in chosen}


def merge(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """The options of all ``files`` together.

    Raises:
        ConfigError: as :func:`load`, or two files that give one option different values.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name in sorted(files):
        for option, value in load(files[name], name).items():
            if option in merged and merged[option] != value:
                raise ConfigError(
                    f"{option} is {merged[option]!r} in {origin[option]} and {value!r} in {name}",
                    where,
                    "keep the files of one run only",
                )
            merged[option], origin[option] = value, name
    return merged
