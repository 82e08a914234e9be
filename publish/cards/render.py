"""Facts through templates. Pure: same facts, same bytes; a missing fact is an error.

Whatever a template prints is escaped, unless a filter of :mod:`publish.cards.text` made Markdown of it.
"""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from publish.cards import details, sentences, text
from publish.cards.facts import StepFacts, SuiteFacts
from publish.cards.metadata import front_matter
from publish.cards.text import plain
from publish.errors import CardError

STEP, SUITE = "step.md.j2", "model.md.j2"

_LINKS = ("branch_link", "dataset_link", "model_link", "source_link", "step_link")
_FILTERS = {
    "code": text.code,
    "branches": text.branch_names,
    "gate_meaning": text.gate_meaning,
    "sentence": sentences.sentence,
    "verdict": sentences.verdict,
    "counts": sentences.counts,
    "layer_type_table": sentences.layer_type_table,
    "explanation_summary": sentences.explanation_summary,
    "explanation_rows": sentences.explanation_rows,
    "notes": text.notes,
    "repo": text.repo_name,
    "branch": text.branch_name,
    "address": text.address,
    "paper": text.paper,
    "digest": text.digest,
    "fenced": text.fenced,
    "thousands": details.thousands,
    "decimal": details.decimal,
    "percent": details.percent,
    "schedule": details.describe_steps,
}


def templates_folder() -> Path:
    """The folder of the templates: in the installed package, else at the top of the checkout.

    Raises:
        CardError: there is none.
    """
    inside = Path(str(resources.files("publish.cards"))) / "templates"
    checkout = Path(__file__).resolve().parents[2] / "templates"
    for folder in (inside, checkout):
        if (folder / STEP).is_file():
            return folder
    raise CardError("the card templates are missing", inside, "install publish again")


def render_step(facts: StepFacts, templates: Path | None = None) -> str:
    """The card of one step's branch. ``templates``: a folder whose templates come before our own.

    Raises:
        CardError: a template needs a fact that is missing, or cannot be read.
    """
    return _render(STEP, facts, templates)


def render_suite(facts: SuiteFacts, templates: Path | None = None) -> str:
    """The card of ``main``. ``templates``: a folder whose templates come before our own.

    Raises:
        CardError: a template needs a fact that is missing, or cannot be read.
    """
    return _render(SUITE, facts, templates)


def _render(name: str, facts: StepFacts | SuiteFacts, templates: Path | None) -> str:
    if templates is not None and not templates.is_dir():
        raise CardError("there is no such folder of templates", templates, "name a folder, or leave --templates out")
    try:
        body = _environment(templates).get_template(name).render(facts=facts)
    except jinja2.TemplateSyntaxError as error:
        raise CardError(f"the template is not valid Jinja: {error.message}", _line(error), "fix this line") from error
    except (jinja2.TemplateError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CardError(
            f"the card cannot be written: {error}",
            f"template {name} of {facts.repo}",
            "give the fact, or fix the template",
        ) from error
    return front_matter(facts.card, facts.repo) + body


def _line(error: jinja2.TemplateSyntaxError) -> str:
    return f"{error.filename or error.name}, line {error.lineno}"


@functools.lru_cache(maxsize=8)
def _environment(own: Path | None) -> jinja2.Environment:
    """Templates of ``own`` before ours; ours also as ``publish/NAME``, for a template that extends its namesake."""
    ours = jinja2.FileSystemLoader(templates_folder())
    loaders: list[jinja2.BaseLoader] = [jinja2.FileSystemLoader(own)] if own is not None else []
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*loaders, ours, jinja2.PrefixLoader({"publish": ours})]),
        undefined=jinja2.StrictUndefined,
        finalize=_escaped,
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    environment.globals |= {name: getattr(text, name) for name in _LINKS}
    return environment


def _escaped(value: Any) -> Markup:
    """What a template prints: Markup as it is, anything else as text on one line."""
    return value if isinstance(value, Markup) else plain(value)
