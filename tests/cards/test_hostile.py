"""Hostile text comes out as text: no live HTML, no link of its own, the same structure as with harmless text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from publish.cards.facts import HUB, Plot, StepFacts, SuiteFacts
from publish.cards.render import render_step, render_suite
from publish.cards.text import neutralised, plain
from publish.errors import CardError
from publish.records.checkpoints import Erratum, SuiteNotes
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.records.manifest import (
    ComparedLayerType,
    ConfigOverride,
    Converter,
    Manifest,
    Preceding,
    RngState,
    Source,
    SourceFile,
    note,
)
from publish.records.run import RunFacts
from publish.release_file import EvaluationResult, ExpectedEqual, Override, Release
from publish.schedule import PYTHIA
from tests.cards import samples
from tests.cards.markdown import PARSER, blocks, body, links, live_html, shown, tokens

FRAGMENTS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<iframe src='//x'>", "<!--", "-->", "<![CDATA[",
    "<details open ontoggle=alert(1)>", "</details>", "<a href='javascript:alert(1)'>", "&lt;script&gt;", "&#60;b&#62;",
    "[x](javascript:alert(1))", "![x](https://evil.example/p.png)", "[x]: javascript:alert(1)", "<javascript:alert(1)>",
    "https://evil.example", "www.evil.example", "`", "``", "```", "~~~", "|", "\\|", "\\", "**", "__", "_", "~~",
    "# ", "- ", "+ ", "1. ", "1) ", "> ", "---", "===", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "$$",
    "{{ facts.repo }}", "{% raw %}", "\0",
    "\u202e", "\u2028", "\ufeff", "|---|", ":-:", "```python\n", "[^1]", "[x][y]", "<x@y.example>",
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=6), min_size=1, max_size=8).map("".join)
WORDS = HOSTILE.filter(lambda text: plain(text) != "")
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def hostile_release(text: str) -> Release:
    card = replace(
        samples.CARD,
        title=text,
        license=text,
        tags=(text,),
        papers=(text,),
        notes="",
        datasets=(text,),
        errata=(text,),
        base_model=text,
        base_model_relation=text,
        results=(EvaluationResult(text, text, text, 0.5),),
    )
    equal, override = ExpectedEqual((0, 1000), text), Override(text, text, text)
    return replace(samples.RELEASE, card=card, expect=(equal,), overrides=(override,))


def hostile_run(text: str) -> RunFacts:
    config = replace(
        samples.RUN.config, optimizer=text, decay_style=text, precision=text, data_paths=(text, text), vocab_file=text
    )
    sizes = replace(samples.TINY, architecture=text, dtype=text)
    return RunFacts(config, sizes, (note("cast", source=text, dtype=text),))


def hostile_manifest(number: int, text: str) -> Manifest:
    state = RngState(text, 1, (1,), Preceding(7, tensors=(text, text)), devices=(text,))
    layer_type = ComparedLayerType(text, 1, 0.5, 0.5, 1.0, 0.1, None)
    reason = note("zero-sign", count=1, tensors=1, names=(text, text))
    return samples.manifest(
        number,
        files=(FileRecord(text, 1, samples.digest()), FileRecord("model.safetensors", 1, text)),
        gates=(Gate(text, text, text),),
        source=Source(text, samples.digest("commit", number)[:40], (SourceFile(text, 1), SourceFile(text, 1))),
        converter=Converter(text, text),
        overrides=(ConfigOverride(text, text, text),),
        comparisons=(
            replace(samples.COMPARISON, location=text, verdict=text, layer_types=(layer_type,), reasons=(reason,)),
        ),
        explanation=replace(samples.EXPLANATION, rng_state=state, stored_state=text),
    )


def hostile_step(text: str) -> StepFacts:
    return StepFacts(hostile_release(text), hostile_run(text), PYTHIA, hostile_manifest(1000, text))


def hostile_suite(text: str) -> SuiteFacts:
    erratum = Erratum("step1", (text,), text, text, text)
    notes = SuiteNotes((Gate(text, text, text),), (erratum,))
    checkpoints = tuple(hostile_manifest(number, text) for number in (0, 1, 2))
    return SuiteFacts(hostile_release(text), hostile_run(text), checkpoints, notes=notes)


@pytest.mark.parametrize("facts", [hostile_step, hostile_suite])
@QUICK
@given(text=WORDS)
@example(text="<script>alert(1)</script>|`x`")
@example(text="```\n<img src=x onerror=alert(1)>")
@example(text="0/0")
@example(text="https://evil.example")
@example(text="0")
def test_a_card_of_hostile_facts_has_the_structure_of_a_harmless_one(facts: Any, text: str) -> None:
    render = render_step if facts is hostile_step else render_suite
    card = body(render(facts(text)))
    harmless = body(render(facts("x")))
    assert live_html(card) == set()
    assert blocks(card) == blocks(harmless)
    assert set(links(card)) - set(links(harmless)) <= links_by_design(text)


def links_by_design(text: str) -> set[str]:
    """Where a card links to for what the release file says: papers, a dataset, a base model, sources at commits."""
    name = text.strip()
    paper = {name} if name.startswith(("http://", "https://")) else set()
    sources = {f"{HUB}/{name}/tree/{samples.digest('commit', number)[:40]}" for number in (0, 1, 2, 1000)}
    return {*paper, *sources, f"{HUB}/{name}", f"{HUB}/datasets/{name}"}


def readable(text: str) -> str:
    """What of it a reader sees, spaces aside."""
    return "".join(char for char in text if char.isprintable() and not char.isspace() and char != "\ufffd")


@QUICK
@given(text=WORDS)
@example(text="# # ")
def test_escaped_text_shows_what_it_says(text: str) -> None:
    for markdown in (f"# {plain(text)}", f"before {plain(text)} after", f"| a |\n|---|\n| {plain(text)} |"):
        inline = [token for token in PARSER.parse(markdown) if token.type == "inline"][-1]
        assert {child.type for child in inline.children or ()} <= {"text"}
        expected = f"before {text} after" if markdown.startswith("before") else text
        assert readable(shown(inline)) == readable(expected)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=HOSTILE)
@example(text="- a\n  ```\n<script>alert(1)</script>\n")
@example(text="  ~~~\nnever closed")
@example(text="```\nnever closed <b>")
@example(text="> ```\n<img src=x onerror=alert(1)>")
def test_notes_keep_their_markdown_and_lose_live_html(text: str) -> None:
    notes = neutralised(text)
    assert live_html(notes) == set()
    assert not [link for link in links(notes) if re.match(r"(?i)\s*(javascript|vbscript|data):", link)]
    headings = [
        token for token in tokens(f"{notes}\n\n## Details\n\n| a |\n|---|\n| b |") if token.type == "table_open"
    ]
    assert headings, "the notes swallow what follows them"


def test_notes_keep_headings_tables_links_and_code() -> None:
    notes = (
        "## A\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[ok](https://x.example/a_(b)) `List<int>`\n\n```c\nif (a<b) {}\n```"
    )
    made = PARSER.render(neutralised(notes))
    assert "<h2>A</h2>" in made
    assert "<table>" in made
    assert 'href="https://x.example/a_(b)"' in made
    assert "<code>List&lt;int&gt;</code>" in made
    assert "if (a&lt;b) {}" in made


def test_a_script_in_the_notes_is_shown_as_text() -> None:
    made = PARSER.render(neutralised("Hello <script>alert(1)</script> [x](javascript:alert(1)) [y](java&#115;cript:z)"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert "href" not in made


@pytest.mark.parametrize("repo", ['a/b", trust_remote_code=True)#', "a/b\nimport os", "a", "a/b/c", "ä/b", ""])
def test_what_cannot_stand_in_the_snippet_is_refused(repo: str) -> None:
    with pytest.raises(CardError, match="snippet"):
        render_step(samples.step(release=replace(samples.RELEASE, target=repo)))


@pytest.mark.parametrize("path", ["javascript:alert(1)", "../x.svg y", "a)b.svg", 'x" onerror="'])
def test_a_picture_comes_from_the_repo_or_the_web(path: str) -> None:
    with pytest.raises(CardError):
        render_suite(samples.suite(plots=(Plot("std over steps", path),)))
