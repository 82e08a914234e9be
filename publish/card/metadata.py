"""A card's front matter, through huggingface_hub's own ``ModelCardData``. No key is empty."""

from __future__ import annotations

from publish.card.facts import Text


def front_matter(text: Text, repo: str) -> str:
    """The YAML block at the head of a card."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=text.license,
        language=list(text.language) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(text.tags) or None,
        datasets=list(text.datasets) or None,
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"
