"""A card as the Hub's validator takes it: its front matter, then what the Hub asks of it."""

from __future__ import annotations

from publish.card.spec import check_metadata
from publish.rehearsal.frontmatter import FrontMatterError, read_card


def check_card(card: str, kind: str = "model") -> tuple[list[str], list[str]]:
    """Errors and warnings for a README. ``kind`` is model, dataset or space."""
    try:
        found = read_card(card)
    except FrontMatterError as error:
        return [f"Invalid YAML metadata: {error}"], []
    if not found.found or not found.data:
        return [], ["empty or missing yaml metadata in repo card"]
    return check_metadata(found.data, kind)
