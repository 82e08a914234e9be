"""The words of a card: what its maintainer says, as opposed to what was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What somebody measured elsewhere on the final step; a card says so."""

    task: str
    dataset: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class CardText:
    """What the maintainer says of the model; figures of the run never come from here.

    ``notes`` is Markdown, ``citation`` BibTeX, ``errata`` a sentence each.
    """

    title: str
    license: str = "apache-2.0"
    language: tuple[str, ...] = ("en",)
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    notes: str = ""
    citation: str = ""
    errata: tuple[str, ...] = ()
    base_model: str | None = None
    base_model_relation: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    results: tuple[EvaluationResult, ...] = ()
