"""Cards as a Markdown parser sees them, raw HTML allowed: what would be live on a page."""

from __future__ import annotations

from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HARMLESS = {"<code>", "</code>", "<sub>", "</sub>", "<details>", "</details>", "<summary>", "</summary>"}


def body(card: str) -> str:
    """A card without its front matter."""
    return card.split("\n---\n", 1)[1]


def tokens(markdown: str) -> Iterator[Token]:
    """Every token, inline ones after the block that holds them."""
    for token in PARSER.parse(markdown):
        yield token
        yield from token.children or ()


def live_html(markdown: str) -> set[str]:
    """The raw HTML that a page would hold, beyond the few tags that our templates write."""
    pieces: set[str] = set()
    for token in tokens(markdown):
        if token.type == "html_inline":
            pieces.add(token.content)
        elif token.type == "html_block":
            pieces |= {line for line in token.content.split("\n") if line and not line.startswith("<summary>All ")}
    return pieces - HARMLESS


def blocks(markdown: str) -> list[str]:
    """The structure: types of all block tokens, in order."""
    return [f"{token.type} {token.tag}" for token in PARSER.parse(markdown)]


def links(markdown: str) -> list[str]:
    """Where links and pictures lead."""
    return [str(token.attrs.get("href", token.attrs.get("src"))) for token in tokens(markdown) if token.attrs and
            ({"href", "src"} & set(token.attrs))]  # fmt: skip


def shown(token: Token) -> str:
    """The text that a reader sees of an inline token."""
    return "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))
