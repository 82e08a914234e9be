"""A README as HTML that is safe to show: rendered by markdown-it, then sanitized by an allow list.

Tags that are not on the list are shown as text. Pictures come from the repo itself; one from elsewhere is replaced by
its alternative text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import quote, unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

# fmt: off
_TAGS = frozenset([
    "a", "b", "blockquote", "br", "center", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "i", "img", "li", "ol", "p", "picture", "pre", "s", "source", "span", "strong", "sub", "summary", "sup",
    "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
])
# fmt: on
_VOID = frozenset({"br", "hr", "img", "source"})
_ATTRIBUTES = {
    "*": frozenset({"align"}),
    **{f"h{level}": frozenset({"id"}) for level in range(1, 7)},
    "a": frozenset({"href", "title"}),
    "details": frozenset({"open"}),
    "img": frozenset({"src", "alt", "title", "width", "height"}),
    "source": frozenset({"srcset", "media"}),
    "ol": frozenset({"start"}),
    "td": frozenset({"colspan", "rowspan", "style"}),
    "th": frozenset({"colspan", "rowspan", "style"}),
}
_STYLE = re.compile(r"text-align:(left|right|center)")
_LINKS = frozenset({"http", "https", "mailto"})
_parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def to_html(
    text: str,
    file_url: Callable[[str], str],
    page_url: Callable[[str], str],
    web_url: Callable[[str], str] = str,
) -> str:
    """Safe HTML, with an anchor before each heading.

    ``file_url`` and ``page_url`` are the URLs of a file's content and of its page, given its path; ``web_url`` is the
    URL that replaces one on the web.
    """
    tokens = _parser.parse(text)
    taken: set[str] = set()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", _anchor(inline, taken))
    sanitizer = _Sanitizer(file_url, page_url, web_url)
    sanitizer.feed(_parser.renderer.render(tokens, _parser.options, {}))
    sanitizer.close()
    return sanitizer.result()


def _anchor(heading: Token, taken: set[str]) -> str:
    """A heading's id as the Hub forms it: its words in lower case, joined by dashes, with a number if it is taken."""
    words = "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))
    name = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", words.lower()).strip())
    anchor, number = name, 0
    while anchor in taken:
        number += 1
        anchor = f"{name}-{number}"
    taken.add(anchor)
    return anchor


class _Sanitizer(HTMLParser):
    """Writes allowed tags, balanced, and everything else as text."""

    def __init__(
        self, file_url: Callable[[str], str], page_url: Callable[[str], str], web_url: Callable[[str], str]
    ) -> None:
        super().__init__(convert_charrefs=False)
        self._file_url, self._page_url, self._web_url = file_url, page_url, web_url
        self._out: list[str] = []
        self._open: list[str] = []

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            self._out.append(escape(self.get_starttag_text() or ""))
            return
        kept = self._attributes(tag, attrs)
        if anchor := kept.pop("id", None):  # before the heading, whose tag has no attributes
            self._out.append(f'<span id="{escape(anchor)}"></span>')
        if tag in ("img", "source") and not ({"src", "srcset"} & kept.keys()):
            self._out.append(escape(kept.get("alt", "")))
            return
        text = "".join(f' {name}="{escape(value)}"' for name, value in kept.items())
        self._out.append(f"<{tag}{text}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _TAGS:
            self._out.append(escape(f"</{tag}>"))
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self._out.append(escape(data, quote=False))

    def handle_entityref(self, name: str) -> None:
        self._out.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._out.append(f"&#{name};")

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> dict[str, str]:
        allowed = _ATTRIBUTES["*"] | _ATTRIBUTES.get(tag, frozenset())
        kept: dict[str, str] = {}
        for name, value in attrs:
            safe = self._value(name, value or "") if name in allowed else None
            if safe is not None:
                kept[name] = safe
        return kept

    def _value(self, name: str, value: str) -> str | None:
        """The value of an attribute that may stay; None when it may not."""
        if name == "style":
            return value if _STYLE.fullmatch(value.replace(" ", "")) else None
        if name == "href":
            return self._link(value)
        if name in ("src", "srcset"):
            path = _relative_path(value.split(" ")[0])
            return self._file_url(path) if path else None
        return value

    def _link(self, value: str) -> str | None:
        if value.startswith("#"):
            return value
        if urlsplit(value).scheme in _LINKS:
            return self._web_url(value)
        path = _relative_path(value)
        return self._page_url(path) if path else None


def _relative_path(url: str) -> str | None:
    """The path of a file in the same repo; None for any other URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return None
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".")]
    return None if ".." in names else quote("/".join(names))
