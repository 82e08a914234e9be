"""Frozen dataclasses to canonical JSON and back: the form of ``publish.json`` and ``checkpoints.json``."""

from __future__ import annotations

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from publish.errors import HubError

T = TypeVar("T")
FIX = "it was not written by this tool, or was edited: publish the branch again"


def canonical(document: object) -> bytes:
    """Sorted keys, two spaces, a newline at the end. Raises ValueError on NaN or infinity."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_fields)
    return text.encode() + b"\n"


def _fields(record: Any) -> Any:
    if isinstance(record, Path):
        return str(record)
    return {field.name: getattr(record, field.name) for field in fields(record)}


def read_record(kind: type[T], content: bytes, where: object) -> T:
    """The record of type `kind` in JSON bytes; keys that it does not have are ignored.

    Raises:
        HubError: not a JSON object, a required key is missing, or a value has another type; it names the key.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HubError(f"not valid JSON: {error}", where, FIX) from error
    return cast(T, _value(kind, document, "", where))


def _value(kind: Any, value: Any, key: str, where: object) -> Any:
    """`value` as `kind`, one of: Any, scalars, paths, unions with None or of a scalar and a tuple, tuple[X, ...],
    Mapping, dataclasses."""
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        kinds = [member for member in get_args(kind) if member is not types.NoneType]
        of_lists = [member for member in kinds if get_origin(member) is tuple]
        return _value((of_lists if isinstance(value, list) and of_lists else kinds)[0], value, key, where)
    if kind is Path:
        return Path(_of_type(str, value, key, where))
    if origin is tuple:
        items = _of_type(list, value, key, where)
        item = get_args(kind)[0]
        return tuple(_value(item, inner, f"{key}[{index}]", where) for index, inner in enumerate(items))
    if is_dataclass(kind):
        return _record(kind, _of_type(dict, value, key, where), key, where)
    if origin is not None:
        return _of_type(dict, value, key, where)
    if kind is float and type(value) is int:
        return value  # as it was written, so that what is written again is the same
    return _of_type(kind, value, key, where)


def _record(kind: Any, document: dict[str, Any], key: str, where: object) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        inner = f"{key}.{field.name}".lstrip(".")
        if field.name in document:
            values[field.name] = _value(hints[field.name], document[field.name], inner, where)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise HubError(f"{inner} is missing", where, FIX)
    return kind(**values)


def _of_type(kind: type[Any], value: Any, key: str, where: object) -> Any:
    if type(value) is not kind:  # exact: True is not an int here
        found = type(value).__name__
        raise HubError(f"{key or 'the document'} must be {kind.__name__}, got {found}", where, FIX)
    return value
