"""Numbers in words that a reader takes in at once: exact, with thousands separators; pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal


def count(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def decimal(value: float | int) -> str:
    """A number exactly as configured: 0.1, 1e-3, 1.6e-4, 143,000. Small ones in powers of ten."""
    if isinstance(value, int):
        return count(value)
    exact = Decimal(repr(value)).normalize()
    if exact == 0:
        return "0"
    if abs(exact) < Decimal("0.01"):
        digits, _, exponent = f"{exact:e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{exact:,f}"


def percent(fraction: float) -> str:
    """0.01 as ``1 %``, 0.0069930 as ``0.699 %``."""
    return f"{Decimal(f'{fraction * 100:.3g}').normalize():f} %"


def describe_steps(steps: Sequence[int]) -> str:
    """A schedule in words: ``0, 1, 2, 4, ..., 512, then every 1,000 to 143,000``. ``steps`` ascend."""
    parts: list[str] = []
    index = 0
    while index < len(steps):
        doubling, even = _run(steps, index, doubling=True), _run(steps, index, doubling=False)
        if doubling >= max(even, 5):
            parts += [*map(count, steps[index : index + 3]), "...", count(steps[index + doubling - 1])]
            index += doubling
        elif even >= 4:
            gap, first, last = steps[index + 1] - steps[index], steps[index], steps[index + even - 1]
            start = "" if parts and first - steps[index - 1] <= gap else f"from {count(first)} "
            parts.append(f"{'then ' if parts else ''}{start}every {count(gap)} to {count(last)}")
            index += even
        else:
            parts.append(count(steps[index]))
            index += 1
    return ", ".join(parts)


def _run(steps: Sequence[int], start: int, *, doubling: bool) -> int:
    """How many steps from ``start`` on double, or keep one distance."""
    if start + 1 >= len(steps):
        return 1
    gap = steps[start + 1] - steps[start]
    length = 1
    for one, other in zip(steps[start:], steps[start + 1 :], strict=False):
        if other != (2 * one if doubling else one + gap) or other <= one:
            break
        length += 1
    return length
