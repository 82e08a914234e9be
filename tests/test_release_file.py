"""A typo in a release file must not release something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from publish.errors import ReleaseError
from publish.release_file import WantedComparison, parse_release, read_release

GOOD = """\
source: runs/pythia-14m
target: EleutherAI/pythia-14m-seed0
schedule: pythia
card:
  title: Pythia-14M-seed0
  license: apache-2.0
  language: [en]
  notes: |
    Two lines
    of notes.
expect:
  - {equal: [0, 1], because: the learning rate is 0 on the first iteration}
"""


def test_a_release_file_says_what_is_released() -> None:
    release = parse_release(GOOD, "release.yaml")
    assert (release.source, release.target, release.schedule) == (
        "runs/pythia-14m",
        "EleutherAI/pythia-14m-seed0",
        "pythia",
    )
    assert release.card.notes == "Two lines\nof notes.\n"
    assert release.expected_equal(1, 0)
    assert not release.expected_equal(1, 2)
    more = GOOD + "  - {jump: [512], because: restarted}\ncompare:\n  - {step: 0, with: a/b@step0}\n"
    release = parse_release(more, "release.yaml")
    assert (release.expected_jump(512), release.expected_jump(0)) == (True, False)
    assert release.compare == (WantedComparison(0, "a/b@step0"),)


def test_what_is_changed_on_purpose_has_a_value_and_a_reason() -> None:
    text = "dtype: bfloat16\noverrides:\n  hidden_act: {value: gelu, because: so}\n"
    text += "  rotary_pct: {value: 0.5, because: so}\n"
    release = parse_release(GOOD + text, "release.yaml")
    assert release.dtype == "bfloat16"
    assert [(each.key, each.value, each.because) for each in release.overrides] == [
        ("hidden_act", "gelu", "so"),
        ("rotary_pct", 0.5, "so"),
    ]


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        (GOOD.replace("target:", "traget:"), "unknown key 'traget'", 2),
        (GOOD.replace("  license:", "  licence:"), "unknown key 'licence'", 6),
        (GOOD.replace("schedule: pythia", "schedule: pythai"), "unknown schedule 'pythai'", 3),
        (GOOD.replace("EleutherAI/pythia-14m-seed0", "pythia"), "'pythia' is not a repository name", 2),
        (GOOD.replace("equal: [0, 1]", "equal: [0, one]"), "a list of steps", 12),
        (GOOD + "source: again\n", "given twice", 13),
        (GOOD + "compare: here\n", "expected a list", 13),
        (GOOD + "compare:\n  - {step: 0}\n", "with is missing", 14),
        (GOOD + "compare:\n  - {step: first, with: a/b}\n", "expected a step", 14),
        (GOOD + "  - {jump: [2], equal: [2, 4], because: so}\n", "either equal or jump", 13),
        (GOOD + "  - {because: so}\n", "either equal or jump", 13),
        (GOOD + "dtype: half\n", "unknown dtype 'half'", 13),
        (GOOD + "overrides: gelu\n", "expected a mapping", 13),
        (GOOD + "overrides:\n  hidden_act: gelu\n", "expected a mapping", 14),
        (GOOD + "overrides:\n  hidden_act: {value: gelu}\n", "because is missing", 14),
        (GOOD + "overrides:\n  hidden_act: {value: [gelu], because: so}\n", "expected a single value", 14),
        ("source: [a\n", "not valid YAML", 2),
        ("- a\n", "expected a mapping", 1),
        ("source: here\n", "target is missing", 1),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, what: str, line: int) -> None:
    with pytest.raises(ReleaseError) as caught:
        parse_release(text, "release.yaml")
    assert what in caught.value.what
    assert caught.value.where == f"release.yaml, line {line}"


def test_the_documented_file_can_be_read() -> None:
    docs = (Path(__file__).parents[1] / "docs" / "release-file.md").read_text("utf-8")
    release = parse_release(docs.split("```yaml")[1].split("```")[0], "docs/release-file.md")
    assert (release.dtype, release.commits_per_hour) == ("float32", 128)
    assert (len(release.compare), len(release.expect), len(release.jumps), len(release.overrides)) == (1, 1, 1, 1)


def test_an_absent_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot read the release file"):
        read_release(tmp_path / "none.yaml")
