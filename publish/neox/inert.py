"""What a pickle becomes here: numbers, texts, containers, and inert stand-ins for everything that has a constructor.

A name in a file is never looked up. The few constructors that a torch checkpoint needs are modelled in
``CONSTRUCTORS``; every other call becomes an :class:`Opaque`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Refusal(Exception):
    """A pickle that torch would not have written; carries the reason."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the file mentions: ``module`` and ``name``, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Opaque:
    """What a constructor this tool does not model would have made: its name and arguments, inert."""

    maker: object
    arguments: object
    state: object = None
    items: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A torch storage as the pickle names it: dtype, archive key and element count."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view into a storage; ``offset``, ``shape`` and ``stride`` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def dict_key(value: Any) -> Any:
    """``value`` when it can be a dict key in bounded time.

    Hashing a tuple of tuples may take for ever, and numbers can be chosen to collide: both are refused.
    """
    if isinstance(value, tuple):
        if len(value) > 8 or not all(_key_part(part) for part in value):
            raise Refusal("a tuple as a key that torch would not write")
        return value
    if isinstance(value, int) and abs(value) >= 2**63:
        raise Refusal("a number of more than 64 bits as a key")
    if isinstance(value, str | bytes | int | float | None | Global | Opaque):
        return value
    raise Refusal(f"a key of type {type(value).__name__}")


def _key_part(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**20)


STORAGE_DTYPES: Mapping[str, str] = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
}


_MAX_DIMENSIONS = 8  # GPT-NeoX's weights have two at most


def _rebuild_tensor(arguments: tuple[Any, ...]) -> object:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise Refusal("a tensor without a storage")
    if not len(shape) == len(stride) <= _MAX_DIMENSIONS:
        raise Refusal(f"a tensor of {len(shape):,} dimensions and {len(stride):,} strides")
    numbers = (offset, *shape, *stride)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise Refusal(f"a tensor with impossible offset, shape or stride {numbers}")
    if math.prod(shape) > storage.count:
        raise Refusal(f"a tensor of shape {tuple(shape)} over a storage of {storage.count} elements")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if all(shape) and last >= storage.count:
        raise Refusal(f"a tensor of shape {tuple(shape)} reaches past its storage of {storage.count} elements")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _ordered_dict(arguments: tuple[Any, ...]) -> object:
    pairs = arguments[0] if arguments else []
    return {dict_key(key): value for key, value in pairs} if isinstance(pairs, list) else {}


def _set(arguments: tuple[Any, ...]) -> object:
    return {dict_key(value) for value in arguments[0]} if arguments else set()


def _size(arguments: tuple[Any, ...]) -> object:
    return tuple(arguments[0]) if arguments else ()


def _latin1(arguments: tuple[Any, ...]) -> object:
    text, encoding = arguments
    if encoding != "latin1" or not isinstance(text, str):
        raise Refusal("bytes in an encoding that pickle protocol 2 does not use")
    return text.encode("latin1")


def _parameter(arguments: tuple[Any, ...]) -> object:
    return arguments[0]


CONSTRUCTORS: Mapping[str, Callable[[tuple[Any, ...]], object]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "_codecs.encode": _latin1,
}


_DIGESTED = 10_000  # values; Python's generator has 625


def digest_of(value: object) -> str | None:
    """The SHA-256 of a small tree of inert values; None for an absent or a larger one."""
    if value is None:
        return None
    digest, left = hashlib.sha256(), [_DIGESTED]
    return digest.hexdigest() if _digest(value, digest.update, left, 0) else None


def _digest(value: object, update: Callable[[bytes], None], left: list[int], depth: int) -> bool:
    left[0] -= 1
    if left[0] < 0 or depth > 16:
        return False
    if isinstance(value, Opaque):
        value = (str(value.maker), value.arguments, value.state)
    if isinstance(value, tuple | list):
        update(f"({len(value)}".encode())
        return all(_digest(part, update, left, depth + 1) for part in value)
    update(f"{type(value).__name__} {value!r} ".encode())
    return not isinstance(value, dict | set)
