"""How results are printed: aligned tables for people, one JSON document for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def as_json(document: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns aligned with spaces; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in [list(header), ["-" * width for width in widths], *cells]:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """``name  value`` lines, names aligned; rows whose value is None are left out."""
    shown = [(name, _cell(value)) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def size(count: int) -> str:
    """Bytes for people: 28.1 MB."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{count:,} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


def steps(numbers: Sequence[int], most: int = 12) -> str:
    """``0, 1, 2, ... 143000``: at most ``most`` of them spelled out."""
    if len(numbers) <= most:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[: most - 2]))}, ... {numbers[-1]} ({len(numbers)} in all)"


def schedule(asked: str | Sequence[int]) -> str:
    """The name of a schedule, or its steps, as :func:`steps` prints them."""
    return asked if isinstance(asked, str) else steps(asked)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(str(value).split())


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()
