"""Every card defect that really shipped, planted in a good card and found."""

from __future__ import annotations

import pytest

from publish.cards.lint import Finding, lint_card, lint_claims, snippet_loads
from publish.cards.render import render_step, render_suite
from publish.records.run import config_facts
from tests.cards import samples

KNOWN = (samples.SOURCE, "EleutherAI/pythia-tiny-seed1")
SUITE = render_suite(samples.suite())
STEP = render_step(samples.step(1000))


def lint(text: str, revision: str | None = None, branches: tuple[str, ...] = samples.BRANCHES) -> tuple[Finding, ...]:
    return lint_card(text, samples.REPO, branches, revision, known=KNOWN)


def without_head(card: str) -> str:
    return card.split("\n---\n", 1)[1]


@pytest.mark.parametrize(
    ("good", "bad", "kind", "rule", "said"),
    [
        ("license: apache-2.0\n", "", "card-metadata", "missing-key", "license is missing"),
        ("library_name: transformers\n", "", "card-metadata", "missing-key", "library_name is missing"),
        ("language:\n- en\n", "language:\n", "card-metadata", "empty-key", "language is empty"),
        ("- pythia\n", "- ''\n", "card-metadata", "empty-key", "tags is empty"),
        ("language:\n- en\n", "language: [en\n", "card-metadata", "front-matter", "not valid YAML"),
        (f'"{samples.REPO}"', '"EleutherAI/pythia-70m-seed3"', "card-snippet", "snippet-repo", "pythia-70m-seed3"),
        (
            'revision="step143000"',
            'revision="step3001"',
            "card-snippet",
            "snippet-revision",
            "step3001, which does not",
        ),
        ("**154 checkpoints**", "**143 checkpoints**", "card-stale", "count", "143 checkpoints, and 154 branches"),
        ("/tree/step512)", "/tree/step513)", "card-stale", "dead-link", "the branch step513"),
        ("weights of `step143000`", "weights of `step142999`", "card-stale", "no-branch", "step142999 is named"),
        ("of no use", "like Pythia-70M-seed3 of no use", "card-stale", "other-model", "names Pythia-70M-seed3"),
        ("of no use", "see EleutherAI/gpt-j-6b", "card-stale", "other-model", "names EleutherAI/gpt-j-6b"),
        ("of no use", "see https://huggingface.co/a/b", "card-stale", "other-model", "names a/b"),
    ],
)
def test_a_planted_defect_is_found(good: str, bad: str, kind: str, rule: str, said: str) -> None:
    assert good in SUITE
    findings = lint(SUITE.replace(good, bad))
    assert [found for found in findings if found.kind == kind and found.rule == rule and said in found.detail]


@pytest.mark.parametrize(
    ("row", "text", "kinds"),
    [
        ("missing branches while the card says 154", SUITE, {("card-stale", "count"), ("card-stale", "dead-link")}),
        (
            "every PolyPythias card loads pythia-70m-seed3",
            STEP.replace(samples.REPO + '"', 'EleutherAI/pythia-70m-seed3"'),
            {("card-snippet", "snippet-repo"), ("card-stale", "other-model")},
        ),
        ("empty or missing yaml metadata", without_head(STEP), {("card-metadata", "no-front-matter")}),
        ("language: empty", STEP.replace("language:\n- en", "language:"), {("card-metadata", "empty-key")}),
        (
            "README stored as LFS",
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            {("readme-in-lfs", "pointer")},
        ),
        ("a 14M card says 10 % warmup, the config 0.01", "It has 10% warmup.", {("card-stale", "warm-up")}),
        ("pythia-14m served the deduplicated-Pile model", "Trained on the Pile.", {("card-stale", "dataset")}),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_the_defects_that_really_shipped(row: str, text: str, kinds: set[tuple[str, str]]) -> None:
    branches = samples.BRANCHES[:-3] if "missing branches" in row else samples.BRANCHES
    revision = "step1000" if text.startswith(("---", "\n# ")) and text is not SUITE else None
    config = config_facts(samples.options("pythia-14m"))
    datasets = ("EleutherAI/pile",) if "14m served" in row else ()
    found = (*lint(text, revision, branches), *lint_claims(text, config, datasets=datasets))
    assert kinds <= {(each.kind, each.rule) for each in found}, row


@pytest.mark.parametrize("target", ["plots/absent.svg", "docs/none.md#x", "#no-such-heading"])
def test_a_link_to_what_is_not_in_the_repo(target: str) -> None:
    card = SUITE.replace("of no use", f"of [no]({target}) use")
    found = lint_card(card, samples.REPO, samples.BRANCHES, known=KNOWN, files=("plots/std.svg", "README.md"))
    assert [(each.kind, each.rule) for each in found] == [("card-stale", "dead-link")]
    fine = SUITE.replace("of no use", "of [no](./plots/std.svg) [use](#details)")
    assert lint_card(fine, samples.REPO, samples.BRANCHES, known=KNOWN, files=("plots/std.svg",)) == ()


def test_a_card_without_metadata() -> None:
    assert ("card-metadata", "no-front-matter") in {(each.kind, each.rule) for each in lint(without_head(SUITE))}
    assert "no-front-matter" in {each.rule for each in lint("---\n---\n" + without_head(SUITE))}


def test_every_step_missing_on_the_hub_while_the_card_says_154() -> None:
    there = tuple(branch for branch in samples.BRANCHES if branch not in ("step7000", "step8000"))
    findings = lint(SUITE, branches=there)
    assert {found.rule for found in findings} == {"count", "dead-link"}
    assert len([found for found in findings if found.rule == "dead-link"]) == 2


def test_a_branch_that_the_table_leaves_out() -> None:
    lines = [line for line in SUITE.split("\n") if not line.startswith("| [step9000]")]
    (finding,) = lint("\n".join(lines))
    assert (finding.kind, finding.rule) == ("card-stale", "unlisted")
    assert "step9000" in finding.detail


@pytest.mark.parametrize("revision", ['revision="step512"', 'revision="main"'])
def test_a_steps_card_that_loads_another_step(revision: str) -> None:
    findings = lint(STEP.replace('revision="step1000"', revision), "step1000")
    assert {(found.kind, found.rule) for found in findings} == {("card-snippet", "snippet-revision")}
    assert len(findings) == 2
    assert findings[0].line == 1 + STEP[: STEP.index(".from_pretrained")].count("\n")


def test_a_steps_card_that_names_no_revision() -> None:
    (finding, _) = lint(STEP.replace('    revision="step1000",\n', ""), "step1000")
    assert finding.detail == "the snippet loads main, not step1000"


def test_a_card_without_a_snippet() -> None:
    card = SUITE.replace(".from_pretrained(", ".load(")
    assert [found.rule for found in lint(card)] == ["no-snippet"]


def test_a_readme_and_pictures_in_lfs() -> None:
    findings = lint_card(SUITE, samples.REPO, samples.BRANCHES, known=KNOWN,
                         lfs=("README.md", "plots/std.svg", "model.safetensors", "tokenizer.json"))  # fmt: skip
    assert [(found.kind, found.detail) for found in findings] == [
        ("readme-in-lfs", "README.md is kept in LFS"),
        ("readme-in-lfs", "plots/std.svg is kept in LFS"),
    ]


def test_a_card_that_is_an_lfs_pointer() -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    assert [found.rule for found in lint(pointer)] == ["pointer"]


def test_main_among_the_branches_is_no_checkpoint() -> None:
    assert lint(SUITE, branches=("main", *samples.BRANCHES)) == ()


def test_a_bare_mention_of_a_neighbour_whose_name_begins_alike() -> None:
    card = SUITE.replace("of no use", "as pythia-tiny-seed12 of no use")
    (finding,) = lint(card)
    assert finding.detail == "the card names pythia-tiny-seed12, which is another model"


@pytest.mark.parametrize(
    ("code", "repo", "revision"),
    [
        ("M.from_pretrained('a/b', revision='step1')", "a/b", "step1"),
        ('M.from_pretrained(\n  "a/b",\n  revision="step3000",\n  cache_dir="./b/step3000",\n)', "a/b", "step3000"),
        ('snapshot_download(repo_id="a/b", revision="x")', "a/b", "x"),
        ('hf_hub_download("a/b", "config.json")', "a/b", None),
        ('pipeline("text-generation", model="a/b")', "a/b", None),
        ("hf download a/b --revision step2", "a/b", "step2"),
        ("git clone -b step4 https://huggingface.co/a/b", "a/b", "step4"),
        ("git clone https://huggingface.co/a/b", "a/b", None),
    ],
)
def test_ways_to_load(code: str, repo: str, revision: str | None) -> None:
    (load,) = snippet_loads(f"text\n```\n{code}\n```\n")
    assert (load.repo, load.revision) == (repo, revision)
