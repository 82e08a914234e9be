"""Rendering: a missing fact is an error, a maintainer's folder overrides blocks, snippets are code."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from publish.cards import render
from publish.cards.facts import Plot, StepFacts
from publish.cards.render import render_step, render_suite
from publish.cards.sentences import sentence
from publish.errors import CardError
from publish.lineage.suite import LINEAGE, REPEATS
from publish.records.checkpoints import SuiteNotes
from publish.records.codec import canonical, read_record
from publish.records.gates import Gate
from publish.records.manifest import Note, Source, note
from publish.release.claims import CLAIMS
from publish.release_file import Release
from publish.verify.gates import GATES
from publish.verify.logits import VALIDATION
from tests.cards import samples


def released(**card: Any) -> Release:
    """The sample release with other words on its cards."""
    return replace(samples.RELEASE, card=replace(samples.CARD, **card))


def own(folder: Path, text: str, name: str = "model.md.j2") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ facts.accuracy }}", "accuracy"),
        ("{{ nowhere }}", "nowhere"),
        ("{{ facts.card.base_model }}", "None"),
        ("{{ facts.card.base_model | thousands }}", "None"),
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


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no such folder"):
        render_step(samples.step(), tmp_path / "absent")


def test_a_maintainer_overrides_one_block_and_keeps_the_rest(tmp_path: Path) -> None:
    override = (
        "{% extends 'publish/model.md.j2' %}{% block summary %}\n{{ super() }}\n"
        "Our *own* line of {{ facts.card.title }}.\n{% endblock %}"
    )
    facts = samples.suite(release=released(title="<b>T</b>"))
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
    assert "okenizer.from" not in render_step(samples.step(tokenizer=None))


def test_front_matter_has_no_empty_key_and_reads_back() -> None:
    release = released(title="x", tags=(), datasets=("",), language=("no", "en", "no"), base_model="")
    head = render_suite(samples.suite(release=release)).split("---\n")[1]
    assert yaml.safe_load(head) == {
        "language": ["no", "en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
    }


def test_base_model_is_in_the_front_matter() -> None:
    release = released(base_model="EleutherAI/pythia-14m")
    assert "base_model: EleutherAI/pythia-14m\n" in render_suite(samples.suite(release=release))


def test_no_license_is_an_error() -> None:
    with pytest.raises(CardError, match="no license"):
        render_step(samples.step(release=released(license=" ")))


def test_neighbours_and_place() -> None:
    card = render_step(samples.step(512))
    assert "Checkpoint 11 of 154" in card
    assert "/tree/step256)" in card
    assert "/tree/step1000)" in card
    assert "Before:" not in render_step(samples.step(0))
    assert "Next:" not in render_step(samples.step(143_000))


def test_a_step_that_is_not_the_releases_is_an_error() -> None:
    with pytest.raises(CardError, match="step 3 is not one of"):
        samples.step(3)


def test_a_short_table_is_not_folded() -> None:
    facts = samples.suite()
    assert "<details>" in render_suite(facts)
    assert "<details>" not in render_suite(replace(facts, checkpoints=facts.checkpoints[:20]))


def test_plots_errata_and_explanation_have_their_places() -> None:
    plot = Plot("Standard deviation of each layer type, by step", "plots/std.svg")
    card = render_suite(samples.suite(plots=(plot,)))
    assert f"## Training dynamics\n\n![{plot.alt}](plots/std.svg)\n\n## Where the initial weights come from" in card
    assert "## Errata\n\n- Until 2026-11-02" in card


def test_citation_in_a_fence_cannot_leave_it() -> None:
    release = released(citation="@misc{x,\n  title={```<script>}\n}")
    card = render_suite(samples.suite(release=release))
    assert card.endswith("```bibtex\n@misc{x,\n  title={` ` `<script>}\n}\n```\n")


def test_a_folder_as_source_is_no_link_and_its_fingerprint_no_commit() -> None:
    source = Source("pythia", f"index:{samples.digest('files')}")
    card = render_step(samples.step(source=source))
    assert f"checkpoint in `pythia`, fingerprint `{samples.digest('files')}`." in card
    checkpoints = tuple(replace(manifest, source=source) for manifest in samples.checkpoints())
    suite = render_suite(samples.suite(checkpoints=checkpoints))
    assert "| Source fingerprint |" in suite
    assert "ource commit" not in suite
    assert "The commit of each" not in suite


def test_where_not_every_source_is_known_there_is_no_column_for_it() -> None:
    first, *others = samples.checkpoints()
    suite = render_suite(samples.suite(checkpoints=(replace(first, source=Source("pythia")), *others)))
    assert "| Source commit" not in suite
    assert "| Source fingerprint" not in suite


def test_every_gate_of_ours_has_its_meaning_and_an_unknown_one_says_where_to_look() -> None:
    names = (*GATES, VALIDATION, CLAIMS, REPEATS, LINEAGE)
    gates = tuple(Gate(name, "passed", "fine") for name in (*names, "weather"))
    suite = render_suite(samples.suite(notes=SuiteNotes(lineage=gates)))
    assert suite.count("see `publish.json`") == 1
    assert "| weather | see `publish.json` | passed: fine |" in suite


def test_an_explanation_is_shown_where_all_was_reproduced() -> None:
    card = render_step(samples.step(0, explanation=samples.EXPLANATION))
    assert "recomputed from seed 1234" in card
    assert "| Values | 14,336 of 14,336 equal in every bit | recomputed |" in card
    partly = replace(samples.EXPLANATION, outcome="partly")
    assert "recomputed" not in render_step(samples.step(0, explanation=partly))


@pytest.mark.parametrize(
    "broken", [Note("weather"), Note("seeds-differ", {"left": 1}), Note("zero-sign", {"count": "x"})]
)
def test_a_note_without_a_sentence_is_an_error(broken: Note) -> None:
    comparison = replace(samples.COMPARISON, reasons=(broken,))
    with pytest.raises(CardError, match="no sentence"):
        render_step(samples.step(comparisons=(comparison,)))


def test_a_figure_that_is_not_finite_is_kept_and_said() -> None:
    made = note("type-std-constant", layer_type="QKV", left=0.25, right=math.nan)
    again = read_record(Note, canonical(made), "here")
    assert again == made
    assert sentence(again) == "QKV: std 0.25 / nan, a constant on one side"


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
    first = samples.manifest(0)
    suite = render_suite(samples.suite(checkpoints=(first,)))
    step = render_step(StepFacts(samples.RELEASE, samples.RUN, (0,), first))
    assert "**1 checkpoint** of a GPT-NeoX training run" in suite
    assert "trained on 0" not in suite
    assert "training run: after step 0, 0 tokens seen." in step
    assert "Tokens in all" not in step
