"""An unpickler that never imports or calls what a file names.

It interprets the opcodes that torch's writer emits (pickle protocols 2 to 5, without extension registry).
Constructors known to be harmless are modelled in a table, everything else becomes an inert :class:`Opaque`,
and storages stay :class:`Storage` references. Opcodes are decoded by the standard library's
``pickletools.genops``, which only parses.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.errors import CheckpointError

MAX_PICKLE = 64 << 20  # bytes; the index of a 12B checkpoint with optimizer state is below 1 MB
_MAX_DEPTH = 200


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


class _Mark:
    """The stack's mark object."""


_MARK = _Mark()
_NONE_YET = object()


class _Refusal(Exception):
    """A pickle that torch would not have written; carries the reason."""


def unpickle(data: bytes, where: str) -> Any:
    """The object tree of ``data``: dicts, lists, tuples, numbers, strings, :class:`StoredTensor`, :class:`Opaque`.

    Raises:
        CheckpointError: the pickle is malformed, uses opcodes that torch never writes, or is over its limits.
    """
    position = 0
    machine = _Machine()
    try:
        for opcode, argument, at in pickletools.genops(data):
            position = at or 0
            if opcode.name == "STOP":
                return machine.finish()
            machine.step(opcode.name, argument)
    except (_Refusal, ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, MemoryError) as error:
        raise CheckpointError(
            f"unreadable pickle: {error or type(error).__name__}",
            f"{where}, byte {position:,} of data.pkl",
            "the file is damaged or was made to deceive; nothing in it was executed",
        ) from error
    raise CheckpointError("unreadable pickle: it has no end", where, "the file is truncated; fetch it again")


def _rebuild_tensor(arguments: tuple[Any, ...]) -> object:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise _Refusal("a tensor without a storage")
    numbers = (offset, *shape, *stride)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers) or len(shape) != len(stride):
        raise _Refusal(f"a tensor with impossible offset, shape or stride {numbers}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if all(shape) and last >= storage.count:
        raise _Refusal(f"a tensor of shape {tuple(shape)} reaches past its storage of {storage.count} elements")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _ordered_dict(arguments: tuple[Any, ...]) -> object:
    return dict(*arguments) if not arguments or isinstance(arguments[0], list) else {}


def _set(arguments: tuple[Any, ...]) -> object:
    return set(arguments[0]) if arguments else set()


def _size(arguments: tuple[Any, ...]) -> object:
    return tuple(arguments[0]) if arguments else ()


def _latin1(arguments: tuple[Any, ...]) -> object:
    text, encoding = arguments
    if encoding != "latin1" or not isinstance(text, str):
        raise _Refusal("bytes in an encoding that pickle protocol 2 does not use")
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


class _Machine:
    """The pickle stack machine over inert values."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def finish(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise _Refusal("the stack does not end with one object")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        action = _ACTIONS.get(name)
        if action is not None:
            action(self, argument)
        elif name in _LITERALS:
            self.stack.append(argument)
        else:
            raise _Refusal(f"opcode {name}, which torch does not write")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _Refusal("a mark where a value is due")
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise _Refusal("a mark where a value is due")
        return value

    def since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise _Refusal("no mark on the stack")

    def put(self, index: int) -> None:
        if not 0 <= index <= 1 << 24:
            raise _Refusal(f"memo index {index}")
        self.memo[index] = self.top()

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if len(pairs) % 2:
            raise _Refusal("an odd number of keys and values")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict):
                target[_key(key)] = value
            elif isinstance(target, Opaque):
                target.items.append((key, value))
            else:
                raise _Refusal("items for something that is no dict")

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(_key(value) for value in values)
        elif isinstance(target, Opaque):
            target.items.extend(values)
        else:
            raise _Refusal("items for something that is no list")

    def reduce(self) -> None:
        arguments, maker = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise _Refusal("a call without an argument tuple")
        known = CONSTRUCTORS.get(str(maker)) if isinstance(maker, Global) else None
        self.stack.append(known(arguments) if known else Opaque(maker, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Opaque):
            target.state = state
        elif not isinstance(target, dict):  # OrderedDict state (torch's _metadata) is of no use here
            raise _Refusal("state for something that has none")

    def persistent(self) -> None:
        identifier = self.pop()
        match identifier:
            case ("storage", Global("torch", kind), str(key), str(), int(count)) if kind in STORAGE_DTYPES:
                if not 0 <= count < 2**56 or not key.isascii() or "/" in key or len(key) > 64:
                    raise _Refusal(f"a storage {key!r} of {count} elements")
                self.stack.append(Storage(STORAGE_DTYPES[kind], key, count))
            case _:
                raise _Refusal("a reference that is no torch storage of a known type")

    def global_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Global(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise _Refusal("a global without a name")
        self.stack.append(Global(module, name))

    def new_object(self) -> None:
        arguments, maker = self.pop(), self.pop()
        self.stack.append(Opaque(maker, arguments))


def _key(value: Any, depth: int = 0) -> Any:
    """``value`` when it can be a dict key cheaply and finitely; hashing a hostile tuple could take for ever."""
    if depth > 4:
        raise _Refusal("a key nested too deeply")
    if isinstance(value, tuple):
        if len(value) > 64:
            raise _Refusal("a key of too many parts")
        return tuple(_key(part, depth + 1) for part in value)
    if isinstance(value, str | bytes | int | float | bool | None | Global | Opaque):
        return value
    raise _Refusal(f"a key of type {type(value).__name__}")


_LITERALS = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BINSTRING SHORT_BINSTRING STRING".split()
)

_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.stack.append(_MARK),
    "POP": lambda m, a: m.stack.pop() and None,
    "POP_MARK": lambda m, a: m.since_mark() and None,
    "NONE": lambda m, a: m.stack.append(None),
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    "EMPTY_DICT": lambda m, a: m.stack.append({}),
    "EMPTY_LIST": lambda m, a: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, a: m.stack.append(()),
    "EMPTY_SET": lambda m, a: m.stack.append(set()),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "LIST": lambda m, a: m.stack.append(m.since_mark()),
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.since_mark()),
    "ADDITEMS": lambda m, a: m.append(m.since_mark()),
    "SETITEM": lambda m, a: m.set_items(list(reversed([m.pop(), m.pop()]))),
    "SETITEMS": lambda m, a: m.set_items(m.since_mark()),
    "PUT": lambda m, a: m.put(int(a)),
    "BINPUT": lambda m, a: m.put(a),
    "LONG_BINPUT": lambda m, a: m.put(a),
    "MEMOIZE": lambda m, a: m.put(len(m.memo)),
    "GET": lambda m, a: m.stack.append(m.memo[int(a)]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "GLOBAL": lambda m, a: m.global_name(a),
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.new_object(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.persistent(),
}
