"""Files made to deceive a reader of checkpoints."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, *, compress: bool = False) -> bytes:
    """A torch zip archive of this pickle and these storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", pickled)
        out.writestr("archive/byteorder", b"little")
        for key, data in (storages or {}).items():
            out.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def calls_system(marker: Path) -> bytes:
    """A pickle that runs a shell command when it is loaded with ``pickle``."""
    return pickle.dumps({"module": Call(os.system, f"touch {marker}")}, protocol=2)


def _tensor(offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int = 4, key: str = "0") -> bytes:
    """A pickled dict with one tensor of any geometry over a storage of ``count`` halves."""

    def number(value: int) -> bytes:
        data = value.to_bytes(9, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    persistent = b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    arguments = b"(" + persistent + number(offset) + numbers(shape) + numbers(stride) + b"\x89}t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    return b"\x80\x02}" + text("module") + b"}" + text("sequential.0.word_embeddings.weight") + tensor + b"ss."


def geometry(offset: int, shape: tuple[int, ...], stride: tuple[int, ...], **more: Any) -> bytes:
    """An archive whose one tensor has this geometry."""
    return archive(_tensor(offset, shape, stride, **more), {"0": bytes(8)})


# --- small files that ask for endless work --------------------------------------------------------------------------

_ORDERED_DICT = b"ccollections\nOrderedDict\n"


def _pickled(body: bytes) -> bytes:
    return archive(b"\x80\x02" + body + b".")


def _put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def _get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def _nested_tuple(levels: int) -> bytes:
    """A tuple whose hash takes 2 ** levels steps."""
    body = b"K\x01" + _put(0)
    for level in range(levels):
        body += _get(level) * 2 + b"\x86" + _put(level + 1)
    return body


def _text(data: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(data)) + data


def _colliding(count: int) -> bytes:
    """Numbers whose hashes are equal: multiples of Python's modulus, 2 ** 61 - 1."""
    return b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(count))


def _members(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for number in range(count):
            out.writestr(f"archive/{number:0100}", b"")
    return buffer.getvalue()


def _overlapping() -> bytes:
    data = bytearray(archive(b"\x80\x02}.", {"0": bytes(64)}))
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # both begin where the first does
    return bytes(data)


def _twice() -> bytes:
    data = archive(b"\x80\x02}.", {"0": bytes(8), "1": bytes(8)})
    return data.replace(b"archive/data/1", b"archive/data/0")


BOMBS: dict[str, Any] = {
    "a key that hashes for ever": lambda: _pickled(b"}" + _nested_tuple(60) + b"Ns"),
    "an OrderedDict of such keys": lambda: _pickled(_ORDERED_DICT + b"(](" + _nested_tuple(60) + b"N\x86ee" + b"tR"),
    "a set of such keys": lambda: _pickled(b"c__builtin__\nset\n(](" + _nested_tuple(60) + b"ee" + b"tR"),
    "colliding keys": lambda: _pickled(b"}(" + _colliding(200_000) + b"u"),
    "one list copied again and again": lambda: _pickled(
        b"]("
        + b"K\x01K\x02\x86" * 50_000
        + b"e"
        + _put(0)
        + b"0]("
        + (_ORDERED_DICT + _get(0) + b"\x85R") * 20_000
        + b"e"
    ),
    "one text encoded again and again": lambda: _pickled(
        _text(b"a" * 4_000_000)
        + _put(0)
        + b"0]("
        + (b"c_codecs\nencode\n" + _get(0) + _text(b"latin1") + b"\x86R") * 5000
        + b"e"
    ),
    "one size copied again and again": lambda: _pickled(
        b"(" + b"K\x01" * 100_000 + b"t" + _put(0) + b"0](" + (b"ctorch\nSize\n" + _get(0) + b"\x85R") * 20_000 + b"e"
    ),
    "seven million dicts": lambda: _pickled(b"(" + b"}" * 7_000_000 + b"t"),
    "two million sets": lambda: _pickled(b"(" + b"\x8f" * 2_000_000 + b"t"),
    "lists in lists": lambda: _pickled(b"]" * 400_000 + b"a" * 399_999),
    "a pickle of 20 MB": lambda: _pickled(b"N0" * 10_000_000 + b"}"),
    "a memo of two billion": lambda: _pickled(b"}" + _put(2**31)),
    "a tensor of a thousand dimensions": lambda: geometry(0, (1,) * 1000, (1,) * 1000),
    "a hundred thousand members": lambda: _members(100_000),
    "fifty thousand members": lambda: _members(50_000),
    "a pickle in a pickle": lambda: _pickled(
        b"}" + _text(b"module") + _text(b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00idtR.") + b"s"
    ),
    "state for an object": lambda: _pickled(b"}" + _text(b"module") + b"cos\nsystem\n)R}" + _text(b"x") + b"Nsbs"),
    "an instance by the old opcodes": lambda: _pickled(b"(" + _text(b"id") + b"ios\nsystem\n"),
    "an extension code": lambda: _pickled(b"\x82\x01"),
    "members that overlap": _overlapping,
    "a member twice": _twice,
    "a zip bomb": lambda: archive(b"\x80\x02" + b"N0" * 5_000_000 + b"}.", compress=True),
    "a learning rate of 600 digits": lambda: _pickled(
        b"}("
        + _text(b"module")
        + b"}"
        + _text(b"optimizer")
        + b"}"
        + _text(b"param_groups")
        + b"]}"
        + _text(b"lr")
        + b"\x8a\xff"
        + b"\x7f" * 255
        + b"sas"
        + b"u"
    ),
}
