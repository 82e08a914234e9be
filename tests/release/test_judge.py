"""What the state of a step's branch is, from what its tip records and what the release asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from publish.records.checkpoints import CheckpointRecord
from publish.records.manifest import ComparisonRecord, Manifest
from publish.release.state import BranchTip, Expected, judge, judge_card
from tests.records.test_manifest import example


def manifest(step: int) -> Manifest:
    return replace(example(), step=step, branch=f"step{step}")


def tip(made: Manifest, *differences: str) -> BranchTip:
    return BranchTip("9" * 40, CheckpointRecord.of(made, "9" * 40), differences)


def test_as_recorded() -> None:
    made = manifest(1)
    found = judge(Expected(1, "step1", made.source.commit, made.plan), tip(made))
    assert (found.state, found.commit, found.has_weights) == ("published", "9" * 40, True)
    assert judge(Expected(1, "step1", None, None), tip(made)).state == "published"


@pytest.mark.parametrize(
    ("seen", "state", "reason"),
    [
        (None, "missing", "the branch does not exist"),
        (BranchTip("9" * 40, empty=True), "missing", "the branch has no commit yet"),
        (BranchTip("9" * 40, reason="none of its 3 files is publish.json"), "foreign", "none of its 3 files"),
        (tip(manifest(2)), "foreign", "its publish.json is for step 2"),
    ],
)
def test_missing_and_foreign(seen: BranchTip | None, state: str, reason: str) -> None:
    found = judge(Expected(1, "step1", None, None), seen)
    assert (found.state, found.has_weights) == (state, False)
    assert reason in found.reason


def test_everything_that_is_stale_is_named() -> None:
    expected = Expected(1, "step1", "a", "b", (("tokenizer.json", "c"),))
    found = judge(expected, tip(manifest(1), "config.json is missing"))
    assert (found.state, found.only_card) == ("stale", False)
    assert found.reason == (
        f"source a, published from {'c' * 12}; plan b, published from {'e' * 12}; "
        "tokenizer.json c, published from none; files: config.json is missing"
    )


def test_a_stale_card_leaves_the_weights_as_they_are() -> None:
    made = manifest(1)
    published = judge(Expected(1, "step1", None, None), tip(made))
    assert judge_card(published, lambda record: str(record.card)) == published
    found = judge_card(published, lambda record: "0" * 64)
    assert (found.state, found.only_card, found.has_weights) == ("stale", True, True)
    assert found.reason == f"card {'0' * 12}, published {(made.card or '')[:12]}"


def test_a_step_shows_exactly_the_comparisons_that_are_asked_for() -> None:
    shown = tuple(
        ComparisonRecord(f"a/b@{revision}", "identical", 28, 28, 0, 0, 0, 0, 0, 4.0)
        for revision in ("step0", "step0", "step1")
    )
    seen = tip(replace(manifest(1), comparisons=shown))
    wanted = Expected(1, "step1", None, None, comparisons=("a/b@step1", "a/b@step0", "a/b@step0"))
    assert judge(wanted, seen).state == "published"
    assert judge(replace(wanted, comparisons=None), seen).state == "published"
    other = judge(replace(wanted, comparisons=("a/b@step0", "a/b@step1", "c/d")), seen)
    said = "not compared with c/d; compared with a/b@step0, which the release does not ask for"
    assert (other.state, other.reason, other.only_card) == ("stale", said, False)
