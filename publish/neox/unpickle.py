"""An unpickler that never imports or calls what a file names.

It interprets the opcodes that torch's writer emits (pickle protocols 2 to 5, without extension registry); text opcodes
of protocol 0 are refused, since torch writes none. What it makes is in ``inert.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from publish.errors import CheckpointError
from publish.neox.inert import Refusal
from publish.neox.machine import MARK, Machine

MAX_PICKLE = 8 << 20  # bytes; the index of a 12B checkpoint with optimizer state is below 1 MB


_WRONG = (
    Refusal,
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
    """The object tree of ``data``: dicts, lists, tuples, numbers, strings, :class:`StoredTensor`, :class:`Opaque`.

    Raises:
        CheckpointError: the pickle is malformed, uses opcodes that torch never writes, or is over its limits.
    """
    machine = Machine(data)
    try:
        return _run(machine)
    except _WRONG as error:
        raise CheckpointError(
            f"unreadable pickle: {error or type(error).__name__}",
            f"{where}, byte {machine.at:,} of data.pkl",
            "the file is damaged or was made to deceive; nothing in it was executed",
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
    """The object the pickle describes. The five commonest opcodes are met inline: they are three in four."""
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
                raise Refusal(f"opcode {chr(code)!r}, which torch does not write")
            at = machine.at
