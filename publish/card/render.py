"""Facts through templates. Pure: same facts, same bytes; a fact that is missing is an error."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

import jinja2

from publish.card import text
from publish.card.facts import StepFacts, SuiteFacts
from publish.card.metadata import front_matter
from publish.errors import CardError

STEP, SUITE = "step.md.j2", "model.md.j2"


def templates_folder() -> Path:
    """Where the templates lie: in the installed package, else at the top of the checkout.

    Raises:
        CardError: nowhere.
    """
    inside = Path(str(resources.files("publish.card"))) / "templates"
    checkout = Path(__file__).resolve().parents[2] / "templates"
    for folder in (inside, checkout):
        if (folder / STEP).is_file():
            return folder
    raise CardError("the card templates are missing", inside, "install publish again")


@functools.lru_cache(maxsize=8)
def _environment(own: Path | None) -> jinja2.Environment:
    folders = [folder for folder in (own, templates_folder()) if folder is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the output is Markdown: every value goes through a filter of its own
    )
    environment.filters |= {"plain": text.plain, "code": text.code, "notes": text.notes, "count": text.count}
    return environment


def render_step(facts: StepFacts, templates: Path | None = None) -> str:
    """The card of one step's branch.

    Raises:
        CardError: a template needs a fact that is missing, or cannot be read.
    """
    return _render(STEP, facts, templates)


def render_suite(facts: SuiteFacts, templates: Path | None = None) -> str:
    """The card of ``main``.

    Raises:
        CardError: a template needs a fact that is missing, or cannot be read.
    """
    return _render(SUITE, facts, templates)


def _render(name: str, facts: StepFacts | SuiteFacts, templates: Path | None) -> str:
    try:
        body = _environment(templates).get_template(name).render(facts=facts)
    except jinja2.TemplateError as error:
        where = f"{name}, line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else name
        raise CardError(f"the card cannot be written: {error}", where, "mend the template or give the fact") from error
    return front_matter(facts.text, facts.repo) + body
