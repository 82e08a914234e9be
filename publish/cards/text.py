"""Text as Markdown: what comes from a checkpoint, a config or a release file is shown as the text that it is.

The filters of templates return ``Markup``, text that is Markdown already; whatever else a template prints goes through
:func:`plain` (see :mod:`publish.cards.render`).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from publish.cards.sentences import GATE_MEANINGS
from publish.errors import CardError

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
        TypeError: it is None, which a card must not print.
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


_FENCE = re.compile(r"(`{3,})[^`]*|(~{3,}).*")
_CLOSING = re.compile(r" {0,3}(`+|~+)[ \t]*")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^`\n]*<[^`\n]*)\1(?!`)")
_TARGET = re.compile(r"\]([(:])(\s*)([^\s)]*)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(?=:)", re.IGNORECASE)
_INVISIBLE = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028\u2029\\]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_ALLOWED = ("http", "https", "mailto")


def neutralised(text: str) -> str:
    """A maintainer's Markdown without live HTML, and without links except to the web, to mail and to files of the repo.

    Headings, lists, tables, links and code stay what they are.
    """
    lines = _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n").rstrip().split("\n")
    return _closed("\n".join(part if is_code else _prose(part) for is_code, part in _parts(lines)))


def _closed(text: str) -> str:
    """``text`` with its last fence closed, so that what follows in the card is not taken for code."""
    from markdown_it import MarkdownIt

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


_CODE = re.compile(r"[A-Za-z0-9._/,:=+ @()-]+")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEB = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~/?=&%#+-]*)?")
_ARXIV = re.compile(r"https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?")


def plain(value: object) -> Markup:
    """``value`` on one line, as text."""
    return escaped(one_line(value).strip())


def code(value: object) -> Markup:
    """``value`` as inline code; pipes and backticks in it are shown and do not end the cell."""
    text = one_line(value).strip()
    return Markup(f"`{text}`") if _CODE.fullmatch(text) else Markup("<code>") + plain(text) + Markup("</code>")


def branch_names(names: Sequence[str], limit: int = 6) -> Markup:
    """Branches as code: ``step0`` and ``step1``; where there are many, the first ones and how many more."""
    shown = [code(name) for name in names[:limit]]
    last = f"{len(names) - limit:,} more" if len(names) > limit else shown.pop()
    return Markup(", ".join(shown) + (" and " if shown else "") + last)


def gate_meaning(gate: str) -> Markup:
    """What a gate proves."""
    return plain(GATE_MEANINGS[gate]) if gate in GATE_MEANINGS else Markup("see `publish.json`")


def notes(value: str) -> Markup:
    """The maintainer's own Markdown, its raw HTML as text."""
    return Markup(neutralised(value))


def repo_name(value: str) -> Markup:
    """A repo's name, for code and links.

    Raises:
        CardError: it is not ``owner/name`` in the Hub's characters.
    """
    return _checked(_REPO, value, "owner/name in letters, digits, '.', '_' and '-'")


def branch_name(value: str) -> Markup:
    """A branch's name, for code and links.

    Raises:
        CardError: it holds other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    return _checked(_BRANCH, value, "letters, digits, '.', '_' and '-'")


def address(value: str) -> Markup:
    """A Hub's address, or a path inside a repo, for a link.

    Raises:
        CardError: it is neither.
    """
    pattern = _WEB if "://" in value else re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
    return _checked(pattern, value, "a web address, or a path inside the repo")


def _checked(pattern: re.Pattern[str], value: str, allowed: str) -> Markup:
    if not pattern.fullmatch(value):
        raise CardError(f"{value!r} cannot be used in a link or a snippet", "the card's facts", f"write {allowed}")
    return Markup(value)


def paper(value: str) -> Markup:
    """A link to a paper, to arXiv by its number; anything that is not a plain web address as text."""
    if found := _ARXIV.fullmatch(value):
        return Markup(f"[arXiv:{found[1]}](https://arxiv.org/abs/{found[1]})")
    return Markup("[") + plain(value.split("://")[1]) + Markup(f"]({value})") if _WEB.fullmatch(value) else plain(value)


def source_link(value: str, commit: str | None, hub: str) -> Markup:
    """Where the raw checkpoints are: a link to a repo on the Hub at a known commit, else code."""
    name = value.removeprefix("hf://").partition("@")[0]
    if commit and _COMMIT.fullmatch(commit) and _REPO.fullmatch(name):
        return Markup(f"[{plain(name)}]({address(hub)}/{name}/tree/{commit})")
    return code(value)


def digest(value: str, length: int = 8) -> Markup:
    """The first characters of a digest or commit; a prefix with a colon is left out."""
    return code(value.rpartition(":")[2][:length])


def fenced(value: str) -> Markup:
    """Lines for a code fence, which they cannot close."""
    return Markup("\n".join(line.replace("```", "` ` `") for line in value.strip().splitlines()))


def branch_link(hub: str, repo: str, branch: str) -> Markup:
    """A link to a branch, under its name."""
    return Markup(f"[{branch_name(branch)}]({address(hub)}/{repo_name(repo)}/tree/{branch_name(branch)})")


def step_link(hub: str, repo: str, step: int) -> Markup:
    """A link to a step's branch, in words."""
    return Markup(f"[step {step:,}]({address(hub)}/{repo_name(repo)}/tree/step{step})")


def dataset_link(hub: str, dataset: str) -> Markup:
    """A link to a dataset of the Hub; any other name as text."""
    if not _REPO.fullmatch(dataset):
        return plain(dataset)
    return Markup(f"[{plain(dataset)}]({address(hub)}/datasets/{dataset})")


def model_link(hub: str, model: str) -> Markup:
    """A link to a model of the Hub; any other name as text."""
    return Markup(f"[{plain(model)}]({address(hub)}/{model})") if _REPO.fullmatch(model) else plain(model)
