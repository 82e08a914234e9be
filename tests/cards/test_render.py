"""Rendering: a missing fact is an error, a maintainer's folder overrides blocks, snippets are code."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from publish.cards import render
from publish.cards.details import details
from publish.cards.facts import Comparison, Plot, StepFacts, SuiteFacts
from publish.cards.lint import lint_card
from publish.cards.render import render_step, render_suite
from publish.errors import CardError
from publish.records.codec import canonical, read_record
from publish.records.gates import Gate
from tests.cards import samples


def own(folder: Path, text: str, name: str = "model.md.j2") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ facts.accuracy }}", "accuracy"),
        ("{{ nowhere }}", "nowhere"),
        ("{{ facts.text.base_model }}", "None"),
        ("{{ facts.text.base_model | plain }}", "None"),
        ("{{ facts.text.base_model | count }}", "None"),
        ("{% include 'absent.md.j2' %}", "absent.md.j2"),
    ],
)
def test_a_missing_fact_is_an_error_and_no_placeholder(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises(CardError, match="cannot be written") as caught:
        render_suite(samples.suite(), own(tmp_path, template))
    assert said in caught.value.what
    assert samples.REPO in caught.value.where


def test_a_template_that_is_no_jinja_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(CardError) as caught:
        render_suite(samples.suite(), own(tmp_path, "\n{% if %}"))
    assert caught.value.where.endswith("model.md.j2, line 2")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no such folder"):
        render_step(samples.step(), tmp_path / "absent")


def test_a_maintainer_overrides_one_block_and_keeps_the_rest(tmp_path: Path) -> None:
    override = (
        "{% extends 'publish/model.md.j2' %}{% block summary %}\n{{ super() }}\n"
        "Our *own* line of {{ facts.text.title }}.\n{% endblock %}"
    )
    facts = samples.suite(text=replace(samples.TEXT, title="<b>T</b>"))
    card = render_suite(facts, own(tmp_path, override))
    assert "Our *own* line of &lt;b&gt;T&lt;/b&gt;." in card
    assert "**154 checkpoints**" in card
    assert "## Provenance" in card


def test_a_maintainer_overrides_a_partial(tmp_path: Path) -> None:
    card = render_step(samples.step(), own(tmp_path, "## Terms\n", "_license.md.j2"))
    assert card.endswith("## Terms\n")


def test_the_snippet_is_ascii_python_of_the_right_repo_and_revision() -> None:
    for card, revision in ((render_suite(samples.suite()), "step143000"), (render_step(samples.step(512)), "step512")):
        (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert snippet.isascii()
        calls = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Call)]
        assert [ast.literal_eval(call.args[0]) for call in calls] == [samples.REPO] * 2
        assert [ast.literal_eval(call.keywords[0].value) for call in calls] == [revision] * 2


def test_without_a_tokenizer_none_is_loaded() -> None:
    assert "okenizer.from" not in render_step(samples.step(has_tokenizer=False))


def test_front_matter_has_no_empty_key_and_reads_back() -> None:
    text = replace(samples.TEXT, title="x", tags=(), datasets=("",), language=("no", "en", "no"), base_model="")
    head = render_suite(samples.suite(text=text)).split("---\n")[1]
    assert yaml.safe_load(head) == {
        "language": ["no", "en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
    }


def test_base_model_is_in_the_front_matter() -> None:
    text = replace(samples.TEXT, base_model="EleutherAI/pythia-14m")
    assert "base_model: EleutherAI/pythia-14m\n" in render_suite(samples.suite(text=text))


def test_no_license_is_an_error() -> None:
    with pytest.raises(CardError, match="no license"):
        render_step(samples.step(text=replace(samples.TEXT, license=" ")))


def test_neighbours_and_place() -> None:
    card = render_step(samples.step(512))
    assert "Checkpoint 11 of 154" in card
    assert "/tree/step256)" in card
    assert "/tree/step1000)" in card
    assert "Before:" not in render_step(samples.step(0))
    assert "Next:" not in render_step(samples.step(143_000))


def test_a_step_that_is_not_the_releases_is_an_error() -> None:
    with pytest.raises(CardError, match="step 3 is none"):
        samples.step(3)


def test_a_short_table_is_not_folded() -> None:
    facts = samples.suite()
    assert "<details>" in render_suite(facts)
    assert "<details>" not in render_suite(replace(facts, lines=facts.lines[:20]))


def test_plots_errata_and_explanation_have_their_places() -> None:
    plot = Plot("Standard deviation of each layer type, by step", "plots/std.svg")
    card = render_suite(samples.suite(plots=(plot,), explanation=samples.EXPLANATION))
    assert f"## Training dynamics\n\n![{plot.alt}](plots/std.svg)\n\n## Where the initial weights come from" in card
    assert "## Errata\n\n- Until 2026-11-02" in card


def test_citation_in_a_fence_cannot_leave_it() -> None:
    text = replace(samples.TEXT, citation="@misc{x,\n  title={```<script>}\n}")
    card = render_suite(samples.suite(text=text))
    assert card.endswith("```bibtex\n@misc{x,\n  title={` ` `<script>}\n}\n```\n")


def test_a_ragged_comparison_is_an_error() -> None:
    with pytest.raises(CardError, match="2 cells under 1 columns"):
        Comparison("t", "v", (), ("a",), (("1", "2"),))


def test_a_folder_as_source_is_no_link_and_its_fingerprint_no_commit() -> None:
    fingerprint = samples.digest("files")
    card = render_step(samples.step(source="runs/pythia", source_commit=f"index:{fingerprint}"))
    assert f"checkpoint in `runs/pythia`, fingerprint `{fingerprint}`." in card
    lines = tuple(replace(line, source_commit=f"index:{fingerprint}") for line in samples.suite().lines)
    suite = render_suite(samples.suite(source="runs/pythia", lines=lines))
    assert "| Source fingerprint |" in suite
    assert "ource commit" not in suite
    assert "The commit of each" not in suite


def test_where_not_every_source_is_known_there_is_no_column_for_it() -> None:
    facts = samples.suite()
    suite = render_suite(replace(facts, lines=(replace(facts.lines[0], source_commit=None), *facts.lines[1:])))
    assert "| Source commit" not in suite
    assert "| Source fingerprint" not in suite


def test_every_gate_of_ours_has_its_meaning_and_an_unknown_one_says_where_to_look() -> None:
    suite = render_suite(samples.suite(gates=(*samples.GATES, Gate("weather", "passed", "passed on 154"))))
    assert suite.count("see `publish.json`") == 1
    assert "| weather | see `publish.json` | passed on 154 |" in suite


def test_facts_go_to_json_and_back() -> None:
    for kind, facts in ((StepFacts, samples.step()), (SuiteFacts, samples.suite())):
        document = canonical(asdict(facts))
        assert json.loads(document)["repo"] == samples.REPO
        assert read_record(kind, document, "facts") == facts


def test_templates_in_the_package_come_before_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    own(tmp_path / "templates", "", "step.md.j2")
    monkeypatch.setattr(render.resources, "files", lambda package: tmp_path)
    assert render.templates_folder() == tmp_path / "templates"


def test_no_templates_anywhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "STEP", "absent.md.j2")
    with pytest.raises(CardError, match="templates are missing"):
        render.templates_folder()


def test_a_release_of_its_first_step_alone_reads_well() -> None:
    first = samples.suite().first
    rows = details(samples.options("pythia-tiny-seed1234"), samples.TINY, last_step=0)
    suite = render_suite(samples.suite(lines=(first,), details=rows, comparisons=()))
    step = render_step(samples.step(0, steps=(0,), details=rows))
    assert "**1 checkpoint** of a GPT-NeoX training run" in suite
    assert "trained on 0" not in suite
    assert "training run: after step 0, 0 tokens seen." in step
    assert "Tokens in all" not in step
    assert lint_card(suite, samples.REPO, ("step0",), known=(samples.SOURCE,)) == ()
