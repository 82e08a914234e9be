"""A card's front matter, through huggingface_hub's own ``ModelCardData``: the one place in this stage that uses it.

It is imported when a card is written, so that ``import publish.card`` stays light. No key is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publish.card.facts import Text
from publish.card.spec import check_metadata
from publish.errors import CardError

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

LIBRARY, PIPELINE = "transformers", "text-generation"


def front_matter(text: Text, repo: str) -> str:
    """The YAML block at the head of a card of ``repo``.

    Raises:
        CardError: there is no license.
    """
    return f"---\n{_data(text, repo).to_yaml(line_break=chr(10))}\n---\n"


def check(text: Text, repo: str) -> None:
    """The metadata against the Hub's own rules, offline.

    Raises:
        CardError: the Hub would refuse it, or warn.
    """
    errors, warnings = check_metadata(dict(_data(text, repo).to_dict()))  # type: ignore[no-untyped-call]
    if errors or warnings:
        what = f"the Hub would not take the card's metadata: {'; '.join([*errors, *warnings])}"
        raise CardError(what, repo, "correct what stands under card: in the release file")


def _data(text: Text, repo: str) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    if not text.license.strip():
        raise CardError("the card has no license", repo, "write card: license: in the release file")
    results = [
        EvalResult(
            task_type=each.task,
            dataset_type=each.dataset,
            dataset_name=each.dataset,
            metric_type=each.metric,
            metric_value=each.value,
        )
        for each in text.results
    ]
    return ModelCardData(
        license=text.license,
        language=_filled(text.language),
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=_filled(text.tags),
        datasets=_filled(text.datasets),
        base_model=text.base_model or None,
        base_model_relation=text.base_model_relation or None,
        license_name=text.license_name or None,
        license_link=text.license_link or None,
        eval_results=results or None,
        model_name=repo.rpartition("/")[2] if results else None,
    )


def _filled(values: tuple[str, ...]) -> list[str] | None:
    """The values that are not blank, each once; None where there is none, so that the key is left out."""
    return list(dict.fromkeys(value for value in values if value.strip())) or None
