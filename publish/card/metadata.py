"""A card's front matter, through huggingface_hub's own ``ModelCardData``: the one place in this stage that uses it.

It is imported when a card is written, so that ``import publish.card`` stays light. No key is empty.
"""

from __future__ import annotations

from publish.card.facts import Text
from publish.errors import CardError

LIBRARY, PIPELINE = "transformers", "text-generation"


def front_matter(text: Text, repo: str) -> str:
    """The YAML block at the head of a card of ``repo``.

    Raises:
        CardError: there is no license.
    """
    from huggingface_hub import ModelCardData

    if not text.license.strip():
        raise CardError("the card has no license", repo, "write card: license: in the release file")
    data = ModelCardData(
        license=text.license,
        language=_filled(text.language),
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=_filled(text.tags),
        datasets=_filled(text.datasets),
        base_model=text.base_model or None,
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"


def _filled(values: tuple[str, ...]) -> list[str] | None:
    """The values that are not blank, each once; None where there is none, so that the key is left out."""
    return list(dict.fromkeys(value for value in values if value.strip())) or None
