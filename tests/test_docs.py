"""What the pages point to exists: files, headings, and paths in code spans."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"(?m)^#+ +(.+?) *$", prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w -]", "", text).lower().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in anchors(linked), f"{target}: there is no such heading"


@each_page
def test_paths_in_code_spans_exist(page: Path) -> None:
    for path in re.findall(r"`((?:publish|tests|scripts|docs|templates)/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), path


def test_every_picture_is_shown() -> None:
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+)", page.read_text("utf-8"))}
    assert shown == {path.name for path in (ROOT / "docs" / "images").iterdir()}
