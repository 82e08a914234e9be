"""The pickle stack machine over inert values: a stack, a memo, and what each opcode may do to them."""

from __future__ import annotations

import struct
from typing import Any

from publish.neox.inert import CONSTRUCTORS, STORAGE_DTYPES, Global, Opaque, Refusal, Storage, dict_key

_BUDGET = 500_000  # objects; the index of a 12B checkpoint with optimizer state takes about 50,000
_MEMO = 1 << 20


class _Mark:
    """The stack's mark object."""


MARK = _Mark()


class Machine:
    """The pickle stack machine over inert values."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = _BUDGET

    def charge(self, objects: int) -> None:
        """Count what is made, so that a small file cannot ask for endless work."""
        self.left -= objects
        if self.left < 0:
            raise Refusal(f"more than {_BUDGET:,} objects")

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        end = self.at + length
        if end > len(self.data):
            raise Refusal(f"{length:,} bytes are announced and {len(self.data) - self.at:,} are left")
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
            raise Refusal("the stack does not end with one object")
        return self.stack[0]

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise Refusal("a mark where a value is due")
        return value

    def drop(self, count: int | None) -> None:
        """Forget the top of the stack, or (None) everything since the last mark."""
        if count is None:
            self.since_mark()
        else:
            del self.stack[-count]

    def top(self) -> Any:
        value = self.stack[-1]
        if value is MARK:
            raise Refusal("a mark where a value is due")
        return value

    def since_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise Refusal("no mark on the stack")

    def put(self, index: int) -> None:
        if not 0 <= index < _MEMO:
            raise Refusal(f"memo index {index}")
        self.memo[index] = self.top()

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if len(pairs) % 2:
            raise Refusal("an odd number of keys and values")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict):
                target[dict_key(key)] = value
            elif isinstance(target, Opaque):
                target.items.append((key, value))
            else:
                raise Refusal("items for something that is no dict")

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(dict_key(value) for value in values)
        elif isinstance(target, Opaque):
            target.items.extend(values)
        else:
            raise Refusal("items for something that is no list")

    def reduce(self) -> None:
        arguments, maker = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise Refusal("a call without an argument tuple")
        self.charge(sum(map(_cost, arguments)))
        known = CONSTRUCTORS.get(str(maker)) if isinstance(maker, Global) else None
        self.stack.append(known(arguments) if known else Opaque(maker, arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Opaque):
            target.state = state
        elif not isinstance(target, dict):  # OrderedDict state (torch's _metadata) is of no use here
            raise Refusal("state for something that has none")

    def persistent(self) -> None:
        identifier = self.pop()
        match identifier:
            case ("storage", Global("torch", kind), str(key), str(), int(count)) if kind in STORAGE_DTYPES:
                if not 0 <= count < 2**56 or not key.isascii() or "/" in key or len(key) > 64:
                    raise Refusal(f"a storage {key!r} of {count} elements")
                self.stack.append(Storage(STORAGE_DTYPES[kind], key, count))
            case _:
                raise Refusal("a reference that is no torch storage of a known type")

    def global_name(self) -> None:
        module = self.line()
        self.stack.append(Global(module, self.line()))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refusal("a global without a name")
        self.stack.append(Global(module, name))

    def new_object(self) -> None:
        arguments, maker = self.pop(), self.pop()
        self.stack.append(Opaque(maker, arguments))


def _cost(argument: object) -> int:
    """What a constructor that copies ``argument`` makes: one copied item or 16 characters count as an object."""
    if isinstance(argument, list | tuple | set | dict):
        return len(argument)
    return len(argument) // 16 if isinstance(argument, str) else 0
