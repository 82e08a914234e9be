"""The one place where text becomes Markdown that shows that text."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup

_SPACES = re.compile(r"\s+")
_SPECIAL = re.compile(
    r"[\\`|<>&*\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=[Ww]{3})\.|(?<!\S)#(?=#*(?:\s|$))"
)
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# what makes a line a list's item or a rule: the character to escape is the last group
_BLOCK_START = re.compile(r"^(\s*(?:\d{1,9}(?=[.)](?:\s|$)))?)([.)](?=\s|$)|[-+](?=\s|$)|-(?=\s*-)|=(?==*\s*$))")
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # among them the marks that reverse the direction of writing


def one_line(value: object) -> str:
    """``value`` as text on one line.

    Raises:
        TypeError: it is None, which no card prints.
    """
    if value is None:
        raise TypeError("a fact that the template prints is not known (None)")
    return _SPACES.sub(" ", str(value))


def escaped(value: object) -> Markup:
    """``value`` as text: what Markdown or HTML gives a meaning becomes entities, spaces and line ends one space."""
    text = one_line(value)
    if not text.isprintable():
        text = "".join("\ufffd" if unicodedata.category(char) in _UNSEEN else char for char in text)
    text = _SPECIAL.sub(lambda found: _NAMED.get(found[0], f"&#{ord(found[0])};"), text)
    return Markup(_BLOCK_START.sub(_not_a_block, text))


def _not_a_block(found: re.Match[str]) -> str:
    return f"{found[1]}&#{ord(found[2])};"
