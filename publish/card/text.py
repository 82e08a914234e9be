"""Text of others in Markdown: what comes from a checkpoint, a config or a release file stays text.

Every function returns ``Markup``, which says that the text is ready to stand in a card; whatever a template prints
that is not ``Markup`` goes through :func:`plain` (see :mod:`publish.card.render`).
"""

from __future__ import annotations

import re

from markupsafe import Markup

from publish.card.escape import escaped, one_line
from publish.card.notes import neutralised
from publish.errors import CardError

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
    """``value`` as inline code; with pipes, backticks and the like it is still one cell, and shows them."""
    text = one_line(value).strip()
    return Markup(f"`{text}`") if _CODE.fullmatch(text) else Markup("<code>") + plain(text) + Markup("</code>")


def notes(value: str) -> Markup:
    """The maintainer's own Markdown, its raw HTML as text."""
    return Markup(neutralised(value))


def repo_name(value: str) -> Markup:
    """A repo's name, as it stands in code and links.

    Raises:
        CardError: it is not ``owner/name`` in the Hub's characters.
    """
    return _checked(_REPO, value, "owner/name in letters, digits, '.', '_' and '-'")


def branch_name(value: str) -> Markup:
    """A branch's name, as it stands in code and links.

    Raises:
        CardError: it holds other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    return _checked(_BRANCH, value, "letters, digits, '.', '_' and '-'")


def address(value: str) -> Markup:
    """A Hub's address, or a path inside a repo, as it stands in a link.

    Raises:
        CardError: it is neither.
    """
    pattern = _WEB if "://" in value else re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
    return _checked(pattern, value, "a web address, or a path inside the repo")


def _checked(pattern: re.Pattern[str], value: str, due: str) -> Markup:
    if not pattern.fullmatch(value):
        raise CardError(f"{value!r} cannot stand in a link or a snippet", "the card's facts", f"write {due}")
    return Markup(value)


def paper(value: str) -> Markup:
    """A link to a paper; arXiv by its number; anything that is no plain web address as text."""
    if found := _ARXIV.fullmatch(value):
        return Markup(f"[arXiv:{found[1]}](https://arxiv.org/abs/{found[1]})")
    return Markup("[") + plain(value.split("://")[1]) + Markup(f"]({value})") if _WEB.fullmatch(value) else plain(value)


def source_link(value: str, commit: str | None, hub: str) -> Markup:
    """Where raw checkpoints came from: a link where it is a repo on the Hub at a known commit, else code."""
    name = value.removeprefix("hf://").partition("@")[0]
    if commit and _COMMIT.fullmatch(commit) and _REPO.fullmatch(name):
        return Markup(f"[{plain(name)}]({address(hub)}/{name}/tree/{commit})")
    return code(value)


def digest(value: str, length: int = 8) -> Markup:
    """The head of a digest or commit, enough to tell it by; what stands before a colon is left out."""
    return code(value.rpartition(":")[2][:length])


def fenced(value: str) -> Markup:
    """Lines that stand in a code fence: they cannot close it."""
    return Markup("\n".join(line.replace("```", "` ` `") for line in value.strip().splitlines()))


def branch_link(hub: str, repo: str, branch: str) -> Markup:
    """A link to a branch, under its name."""
    return Markup(f"[{branch_name(branch)}]({address(hub)}/{repo_name(repo)}/tree/{branch_name(branch)})")


def step_link(hub: str, repo: str, step: int) -> Markup:
    """A link to a step's branch, in words."""
    return Markup(f"[step {step:,}]({address(hub)}/{repo_name(repo)}/tree/step{step})")


def dataset_link(hub: str, dataset: str) -> Markup:
    """A link to a dataset of the Hub; a name that is no repo's as text."""
    if not _REPO.fullmatch(dataset):
        return plain(dataset)
    return Markup(f"[{plain(dataset)}]({address(hub)}/datasets/{dataset})")


def model_link(hub: str, model: str) -> Markup:
    """A link to a model of the Hub; a name that is no repo's as text."""
    return Markup(f"[{plain(model)}]({address(hub)}/{model})") if _REPO.fullmatch(model) else plain(model)
