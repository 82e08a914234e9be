"""Mutated checkpoints, read under an audit hook: ``python -m tests.formats.fuzz COUNT SEED FOLDER...`` prints JSON.

Each folder is a real checkpoint. A mutation goes to the archive's bytes, to its directory, or to the pickle inside an
archive that is otherwise sound. The checkpoint is then opened, its config read, its conversion planned, and its small
tensors read: all that happens before anything is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from publish.convert.plan import make_plan
from publish.errors import PublishError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from tests.convert.rawmodel import MemoryFiles

_FORBIDDEN = ("import", "exec", "compile", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pickle.")
_OPCODES = (
    b"(.0125FNIJKMLXUTVSB CGabcdeghijlopqrstu}]\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8e\x8f\x90\x93\x94\x95"
)


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] = dice.randrange(256)


def opcodes(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = bytes(dice.choice(_OPCODES) for _ in range(dice.randrange(1, 6)))


def cut(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 4, 64, len(data)))]


def repeat(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.randrange(1, 200)] * dice.choice((1, 2, 50))


def numbers(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    width = dice.choice((2, 4, 8))
    value = dice.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)) % 256**width
    data[at : at + width] = value.to_bytes(width, "little")


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, opcodes, cut, repeat, numbers)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """``data`` with one to three mutations, anywhere, in its last 2 KiB, or in the pickle of a sound archive."""
    place = dice.choice(("anywhere", "directory", "pickle", "pickle"))
    if place == "pickle":
        return _with_pickle(data, dice)
    start = 0 if place == "anywhere" else max(0, len(data) - 2048)
    return data[:start] + _mutated(data[start:], dice)


def _mutated(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        if changed:
            dice.choice(MUTATIONS)(changed, dice)
    return bytes(changed)


def _with_pickle(data: bytes, dice: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, _mutated(content, dice) if info.filename.endswith("data.pkl") else content)
    return out.getvalue()


def examine(files: Mapping[str, bytes]) -> None:
    """All that is read of a checkpoint before anything is written."""
    checkpoint = RawCheckpoint.open(MemoryFiles(files))
    make_plan(checkpoint, read_config(checkpoint))
    for tensor in checkpoint.ranks[0].values():
        if tensor.span < 1 << 16:
            checkpoint.read(tensor)


def watch() -> tuple[set[str], Callable[[Mapping[str, bytes]], tuple[bool, float]]]:
    """What the audit hook saw, and a function that examines files: (refused, seconds)."""
    seen: set[str] = set()
    armed = False

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if armed and event.startswith(_FORBIDDEN):
            seen.add(f"{event} {arguments!r}"[:200])

    def examined(files: Mapping[str, bytes]) -> tuple[bool, float]:
        nonlocal armed
        started, armed = time.perf_counter(), True
        try:
            examine(files)
            return False, time.perf_counter() - started
        except PublishError:
            return True, time.perf_counter() - started
        finally:
            armed = False

    sys.addaudithook(audit)
    return seen, examined


def peak_mb() -> int:
    """The most memory this process has held; ``ru_maxrss`` would count its parent's at the fork."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main(count: int, seed: int, folders: list[Path]) -> dict[str, object]:
    """Counts, the slowest file's seconds, the peak of memory in MB, and what the audit hook saw."""
    real = [
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    for files in real:  # whatever is imported on first use is imported now
        with contextlib.suppress(PublishError):  # a network without counterpart
            examine(files)
    seen, examined = watch()
    dice = random.Random(seed)
    refusals, slowest = 0, 0.0
    for _ in range(count):
        files = dict(dice.choice(real))
        name = dice.choice([name for name in files if name.endswith((".pt", ".yml", ".yaml"))])
        files[name] = mutated(files[name], dice) if name.endswith(".pt") else _mutated(files[name], dice)
        refused, seconds = examined(files)
        refusals, slowest = refusals + refused, max(slowest, seconds)
    return {
        "read": count - refusals,
        "refused": refusals,
        "slowest_seconds": round(slowest, 3),
        "peak_mb": peak_mb(),
        "audit": sorted(seen),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), [Path(path) for path in sys.argv[3:]])))
