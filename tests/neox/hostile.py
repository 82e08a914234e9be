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
