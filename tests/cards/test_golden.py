"""Cards byte for byte. A change that is meant: ``python -m tests.cards.regenerate``, then read the diff."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from publish.cards.lint import lint_card
from tests.cards import samples
from tests.cards.regenerate import GOLDEN, cards

CARDS = cards()


@pytest.mark.parametrize("name", sorted(CARDS))
def test_card_is_the_golden_one(name: str) -> None:
    assert CARDS[name].encode() == (GOLDEN / f"{name}.md").read_bytes()


def test_no_golden_card_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.md")} == set(CARDS)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_card_has_tidy_lines(name: str) -> None:
    lines = CARDS[name].split("\n")
    assert not [line for line in lines if line != line.rstrip()]
    assert "\n\n\n" not in CARDS[name]
    assert CARDS[name].endswith("\n")
    assert not CARDS[name].endswith("\n\n")
    assert "None" not in CARDS[name]


@pytest.mark.parametrize("name", ["suite", "step0", "step1000", "step143000"])
def test_our_own_cards_pass_the_lint(name: str) -> None:
    revision = None if name == "suite" else name
    known = (samples.SOURCE, "EleutherAI/pythia-tiny-seed1")
    assert lint_card(CARDS[name], samples.REPO, samples.BRANCHES, revision, known=known) == ()


def test_same_bytes_in_another_process_with_other_hashes_and_time_zone() -> None:
    program = (
        "import sys; from tests.cards.regenerate import cards; "
        "sys.stdout.buffer.write(''.join(cards().values()).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stdout == "".join(CARDS.values()).encode()


def test_rendering_imports_nothing_heavy_before_it_renders() -> None:
    program = (
        "import sys, publish.cards.render; print(*{'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == ""
