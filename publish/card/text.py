"""Text of others in Markdown: what comes from a checkpoint, a config or a release file stays text."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&])")
_LINES = re.compile(r"\s+")


def plain(value: object) -> str:
    """``value`` on one line, every character that Markdown or HTML gives a meaning escaped."""
    text = _LINES.sub(" ", str(value)).strip()
    return _SPECIAL.sub(lambda found: _ESCAPED.get(found[1], f"\\{found[1]}"), text)


_ESCAPED = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def code(value: object) -> str:
    """``value`` as inline code that also survives a table cell: pipes and backticks included."""
    text = _LINES.sub(" ", str(value)).strip()
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return f"<code>{escaped.replace('`', '&#96;').replace('*', '&#42;').replace('_', '&#95;')}</code>"


def notes(value: str) -> str:
    """A maintainer's Markdown with raw HTML shown as text; code fences keep their characters."""
    return value.strip().replace("<", "&lt;")


def count(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"
