"""The maintainer's Markdown with its raw HTML as text: headings, lists, tables, links and code stay what they are.

A fence counts as code only at the line's very beginning: there it belongs to no list or quotation that could end
before it, so that what this file takes for code is code to every Markdown parser. Everything else has its ``<``
escaped, whatever it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from publish.card.escape import escaped

_FENCE = re.compile(r"(`{3,})[^`]*|(~{3,}).*")
_CLOSING = re.compile(r" {0,3}(`+|~+)[ \t]*")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^`\n]*<[^`\n]*)\1(?!`)")
_TARGET = re.compile(r"\]([(:])(\s*)([^\s)]*)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028\u2029\\]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_ALLOWED = ("http", "https", "mailto")


def neutralised(text: str) -> str:
    """``text`` without live HTML and without links other than to the web, to mail and to files of the repo."""
    lines = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n").rstrip().split("\n")
    return _closed("\n".join(part if is_code else _prose(part) for is_code, part in _parts(lines)))


def _closed(text: str) -> str:
    """``text`` with its last fence closed, so that what follows in the card is not taken for code."""
    from markdown_it import MarkdownIt  # here, so that a card without notes costs no import

    tokens = MarkdownIt("commonmark").parse(f"{text}\n\n# end")
    last = tokens[-1]
    return f"{text}\n{last.markup}" if last.type == "fence" and last.level == 0 else text


def _parts(lines: list[str]) -> Iterator[tuple[bool, str]]:
    """(is it code, its lines)."""
    kept: list[str] = []
    fence = ""
    for line in lines:
        opened = None if fence else _FENCE.fullmatch(line)
        if opened:
            if kept:
                yield False, "\n".join(kept)
            kept, fence = [line], opened[1] or opened[2]
        elif fence and _closes(line, fence):
            yield True, "\n".join([*kept, line])
            kept, fence = [], ""
        else:
            kept.append(line)
    if kept:
        yield bool(fence), "\n".join(kept)


def _closes(line: str, fence: str) -> bool:
    found = _CLOSING.fullmatch(line)
    return found is not None and found[1][0] == fence[0] and len(found[1]) >= len(fence)


def _prose(text: str) -> str:
    spans = _SPAN.sub(lambda found: f"\0{escaped(found[2].strip())}\1", text)
    safe = _TARGET.sub(_target, spans.replace("<", "&lt;"))
    return safe.replace("\0", "<code>").replace("\1", "</code>")


def _target(found: re.Match[str]) -> str:
    """A link's target as it is; where a scheme does more than lead to a page, no link."""
    target = _INVISIBLE.sub("", html.unescape(html.unescape(found[3]))).removeprefix("<")
    scheme = _SCHEME.match(target)
    if scheme is None or scheme[0].lower() in _ALLOWED:
        return found[0]
    return f"]\\{found[1]}{found[2]}{found[3]}"
