"""An unpickler that never imports or calls what a file names.

A stack machine interprets the opcodes that torch's writer emits (pickle protocols 2 to 5, without the extension
registry). Text opcodes of protocol 0 are refused, since torch writes none. The result is made of numbers, strings and
containers. Tensors are views into storages, which are not read. What any other constructor would make is a
:class:`Stub`. Work and memory are bounded: a small file cannot ask for endless work.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.dtypes import BY_STORAGE
from publish.errors import CheckpointError

MAX_PICKLE = 8 << 20  # bytes; the index of a 12B checkpoint with optimizer state is below 1 MB

_MAX_OBJECTS = 500_000  # the index of a 12B checkpoint with optimizer state takes about 50,000
_MAX_MEMO = 1 << 20
_MAX_DIMENSIONS = 8  # GPT-NeoX's weights have two at most
_MAX_DIGESTED = 10_000  # values; the state of Python's generator has 625


class UnsafePickle(Exception):
    """A pickle that torch would not write; says why."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the file mentions; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Stub:
    """Stands for what a constructor would make that this tool does not know: its name, its arguments, its state."""

    maker: object
    arguments: object
    state: object = None
    items: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A torch storage as the pickle names it; ``key`` is its name in the archive, ``count`` its elements."""

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
    """``value`` if it can be hashed in bounded time.

    Hashing a tuple of tuples may take forever, and numbers can be chosen to collide: both are refused.

    Raises:
        UnsafePickle: it cannot.
    """
    if isinstance(value, tuple):
        if len(value) > 8 or not all(_key_part(part) for part in value):
            raise UnsafePickle("a tuple as a key that torch would not write")
        return value
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UnsafePickle("a number of more than 64 bits as a key")
    if isinstance(value, str | bytes | int | float | None | Global | Stub):
        return value
    raise UnsafePickle(f"a key of type {type(value).__name__}")


def _key_part(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**20)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> object:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise UnsafePickle("a tensor without a storage")
    if not len(shape) == len(stride) <= _MAX_DIMENSIONS:
        raise UnsafePickle(f"a tensor of {len(shape):,} dimensions and {len(stride):,} strides")
    numbers = (offset, *shape, *stride)
    if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise UnsafePickle(f"a tensor with impossible offset, shape or stride {numbers}")
    if math.prod(shape) > storage.count:
        raise UnsafePickle(f"a tensor of shape {tuple(shape)} over a storage of {storage.count} elements")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if all(shape) and last >= storage.count:
        raise UnsafePickle(f"a tensor of shape {tuple(shape)} reaches past its storage of {storage.count} elements")
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
        raise UnsafePickle("bytes in an encoding that pickle protocol 2 does not use")
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


def digest_of(value: object) -> str | None:
    """The SHA-256 of a small tree that :func:`unpickle` made; None for None and for a larger tree."""
    if value is None:
        return None
    digest, left = hashlib.sha256(), [_MAX_DIGESTED]
    return digest.hexdigest() if _digest(value, digest.update, left, 0) else None


def _digest(value: object, update: Callable[[bytes], None], left: list[int], depth: int) -> bool:
    left[0] -= 1
    if left[0] < 0 or depth > 16:
        return False
    if isinstance(value, Stub):
        value = (str(value.maker), value.arguments, value.state)
    if isinstance(value, tuple | list):
        update(f"({len(value)}".encode())
        return all(_digest(part, update, left, depth + 1) for part in value)
    update(f"{type(value).__name__} {value!r} ".encode())
    return not isinstance(value, dict | set)


class _Mark:
    """The mark on the stack."""


MARK = _Mark()


class Machine:
    """The pickle stack machine: a stack, a memo, and what an opcode may do to them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = _MAX_OBJECTS

    def charge(self, objects: int) -> None:
        """Count new objects against the limit."""
        self.left -= objects
        if self.left < 0:
            raise UnsafePickle(f"more than {_MAX_OBJECTS:,} objects")

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        end = self.at + length
        if end > len(self.data):
            raise UnsafePickle(f"it announces {length:,} bytes where {len(self.data) - self.at:,} are left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, form: struct.Struct) -> Any:
        value = form.unpack_from(self.data, self.at)[0]
        self.at += form.size
        return value

    def line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 1024)
        text = self.data[self.at : end].decode("ascii")
        self.at = end + 1
        return text

    def finish(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is MARK:
            raise UnsafePickle("the stack does not end with one object")
        return self.stack[0]

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise UnsafePickle("a mark where a value is expected")
        return value

    def drop(self, count: int | None) -> None:
        """Remove ``count`` objects from the stack, or (None) everything since the last mark."""
        if count is None:
            self.since_mark()
        else:
            del self.stack[-count]

    def top(self) -> Any:
        value = self.stack[-1]
        if value is MARK:
            raise UnsafePickle("a mark where a value is expected")
        return value

    def since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise UnsafePickle("no mark on the stack")

    def put(self, index: int) -> None:
        if not 0 <= index < _MAX_MEMO:
            raise UnsafePickle(f"memo index {index}")
        self.memo[index] = self.top()

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if len(pairs) % 2:
            raise UnsafePickle("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict):
                target[dict_key(key)] = value
            elif isinstance(target, Stub):
                target.items.append((key, value))
            else:
                raise UnsafePickle("items for something that is not a dict")

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(dict_key(value) for value in values)
        elif isinstance(target, Stub):
            target.items.extend(values)
        else:
            raise UnsafePickle("items for something that is not a list")

    def reduce(self) -> None:
        arguments, maker = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise UnsafePickle("a call without an argument tuple")
        self.charge(sum(map(_cost, arguments)))
        known = CONSTRUCTORS.get(str(maker)) if isinstance(maker, Global) else None
        self.stack.append(known(arguments) if known else Stub(maker, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Stub):
            target.state = state
        elif not isinstance(target, dict):  # OrderedDict state (torch's _metadata) is of no use here
            raise UnsafePickle("state for something that has none")

    def persistent(self) -> None:
        identifier = self.pop()
        match identifier:
            case ("storage", Global("torch", kind), str(key), str(), int(count)) if kind in BY_STORAGE:
                if not 0 <= count < 2**56 or not key.isascii() or "/" in key or len(key) > 64:
                    raise UnsafePickle(f"a storage {key!r} of {count} elements")
                self.stack.append(Storage(BY_STORAGE[kind].name, key, count))
            case _:
                raise UnsafePickle("a reference to something that is not a torch storage of a known type")

    def global_name(self) -> None:
        module = self.line()
        self.stack.append(Global(module, self.line()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnsafePickle("a global without a name")
        self.stack.append(Global(module, name))

    def new_object(self) -> None:
        arguments, maker = self.pop(), self.pop()
        self.stack.append(Stub(maker, arguments))


def _cost(argument: object) -> int:
    """The objects that a constructor makes by copying ``argument``: an item or 16 characters count as one."""
    if isinstance(argument, list | tuple | set | dict):
        return len(argument)
    return len(argument) // 16 if isinstance(argument, str) else 0


_WRONG = (
    UnsafePickle,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    struct.error,
    RecursionError,
)


def unpickle(data: bytes, where: str) -> Any:
    """The object that ``data`` describes, made of dicts, lists, tuples, numbers, strings, `StoredTensor` and `Stub`.

    Raises:
        CheckpointError: the pickle is malformed, uses opcodes that torch never writes, or exceeds a limit.
    """
    machine = Machine(data)
    try:
        return _run(machine)
    except _WRONG as error:
        raise CheckpointError(
            f"unreadable pickle: {error or type(error).__name__}",
            f"{where}, byte {machine.at:,} of data.pkl",
            "the file is damaged or hostile; nothing in it was executed; fetch it again",
        ) from error


_U1, _U2, _U4, _U8 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")
_STOP, _BINPUT, _LONG_BINPUT, _BINGET, _BININT, _BININT1 = b".qrhJK"


def _text(form: struct.Struct) -> Callable[[Machine], Any]:
    return lambda m: m.take(m.number(form)).decode("utf-8", "surrogatepass")


def _bytes(form: struct.Struct) -> Callable[[Machine], Any]:
    return lambda m: m.take(m.number(form))


def _by_code(table: Mapping[bytes, Callable[[Machine], Any]]) -> dict[int, Callable[[Machine], Any]]:
    return {code[0]: action for code, action in table.items()}


# opcodes that push what they carry (Lib/pickle.py names them)
_LITERALS = _by_code(
    {
        b"M": lambda m: m.number(_U2),
        b"G": lambda m: m.number(_F8),
        b"\x8a": lambda m: int.from_bytes(m.take(m.number(_U1)), "little", signed=True),
        b"X": _text(_U4),
        b"\x8c": _text(_U1),
        b"\x8d": _text(_U8),
        b"B": _bytes(_U4),
        b"C": _bytes(_U1),
        b"\x8e": _bytes(_U8),
        b"(": lambda m: MARK,
        b"N": lambda m: None,
        b"\x88": lambda m: True,
        b"\x89": lambda m: False,
        b"}": lambda m: {},
        b"]": lambda m: [],
        b")": lambda m: (),
        b"\x8f": lambda m: set(),
        b"j": lambda m: m.memo[m.number(_U4)],
    }
)

_ACTIONS = _by_code(
    {
        b"\x80": lambda m: m.number(_U1),
        b"\x95": lambda m: m.number(_U8),
        b"\x94": lambda m: m.put(len(m.memo)),
        b"0": lambda m: m.drop(1),
        b"1": lambda m: m.drop(None),
        b"t": lambda m: m.stack.append(tuple(m.since_mark())),
        b"\x85": lambda m: m.tuple_of(1),
        b"\x86": lambda m: m.tuple_of(2),
        b"\x87": lambda m: m.tuple_of(3),
        b"l": lambda m: m.stack.append(m.since_mark()),
        b"a": lambda m: m.append([m.pop()]),
        b"e": lambda m: m.append(m.since_mark()),
        b"\x90": lambda m: m.append(m.since_mark()),
        b"s": lambda m: m.set_items(list(reversed([m.pop(), m.pop()]))),
        b"u": lambda m: m.set_items(m.since_mark()),
        b"c": lambda m: m.global_name(),
        b"\x93": lambda m: m.stack_global(),
        b"R": lambda m: m.reduce(),
        b"\x81": lambda m: m.new_object(),
        b"b": lambda m: m.build(),
        b"Q": lambda m: m.persistent(),
    }
)


def _run(machine: Machine) -> Any:
    """The object that the pickle describes. The five most frequent opcodes, three in four, are handled inline."""
    data, actions, literals = machine.data, _ACTIONS, _LITERALS
    stack, memo, at = machine.stack, machine.memo, 0
    while True:
        code = data[at]
        at += 1
        if code == _BINPUT:
            machine.put(data[at])
            at += 1
        elif code == _LONG_BINPUT:
            machine.put(_U4.unpack_from(data, at)[0])
            at += 4
        elif code == _BINGET:
            stack.append(memo[data[at]])
            at += 1
        elif code == _BININT:
            stack.append(_I4.unpack_from(data, at)[0])
            at += 4
        elif code == _BININT1:
            stack.append(data[at])
            at += 1
        else:
            machine.at = at
            machine.charge(1)
            if (read := literals.get(code)) is not None:
                stack.append(read(machine))
            elif (action := actions.get(code)) is not None:
                action(machine)
            elif code == _STOP:
                return machine.finish()
            else:
                raise UnsafePickle(f"opcode {chr(code)!r}, which torch does not write")
            at = machine.at
