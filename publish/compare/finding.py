"""What is wrong with a suite: which steps, which tensors, and why."""

from __future__ import annotations

from dataclasses import dataclass

REPEAT, REPEAT_ZEROS, SHARED = "repeated-weights", "repeated-up-to-zero-sign", "shared-tensors"
NOT_EQUAL, FLAT = "declared-equal-differs", "constant-tensor"
OUT_OF_ORDER, JUMP = "out-of-order", "jump"


@dataclass(frozen=True, slots=True)
class LineageFinding:
    """One defect. ``steps`` are those to look at, ``tensors`` those it shows in (all of them, or the clearest)."""

    kind: str
    steps: tuple[int, ...]
    tensors: tuple[str, ...]
    detail: str
    fix: str
