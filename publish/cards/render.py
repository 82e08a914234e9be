"""Facts through templates. Pure: same facts, same bytes; a fact that is missing is an error.

Escaping is the default, not the template's duty: whatever a template prints is text (see
:mod:`publish.cards.text`) unless a filter of :mod:`publish.cards.text` made it something else.
"""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from publish.cards import details, text
from publish.cards.facts import StepFacts, SuiteFacts
from publish.cards.metadata import front_matter
from publish.cards.text import escaped
from publish.errors import CardError

STEP, SUITE = "step.md.j2", "model.md.j2"

_LINKS = ("branch_link", "dataset_link", "model_link", "source_link", "step_link")
_FILTERS = {
    "plain": text.plain,
    "code": text.code,
    "notes": text.notes,
    "repo": text.repo_name,
    "branch": text.branch_name,
    "address": text.address,
    "paper": text.paper,
    "digest": text.digest,
    "fenced": text.fenced,
    "count": details.count,
    "decimal": details.decimal,
    "percent": details.percent,
    "schedule": details.describe_steps,
}


def templates_folder() -> Path:
    """Where the templates lie: in the installed package, else at the top of the checkout.

    Raises:
        CardError: nowhere.
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
        raise CardError("no such folder of templates", templates, "name a folder, or leave the option out")
    try:
        body = _environment(templates).get_template(name).render(facts=facts)
    except jinja2.TemplateSyntaxError as error:
        raise CardError(f"the template is no Jinja: {error.message}", _line(error), "mend that line") from error
    except (jinja2.TemplateError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CardError(
            f"the card cannot be written: {error}",
            f"template {name} of {facts.repo}",
            "give the fact, or mend the template",
        ) from error
    return front_matter(facts.text, facts.repo) + body


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
        finalize=_printed,
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    environment.globals |= {name: getattr(text, name) for name in _LINKS}
    return environment


def _printed(value: Any) -> Markup:
    """What a template prints: Markup as it is, anything else as text."""
    return value if isinstance(value, Markup) else escaped(value)
