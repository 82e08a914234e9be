"""Write the golden cards again, after a change that is meant, and read the diff:

python -m tests.cards.regenerate
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from publish.cards.details import details
from publish.cards.render import render_step, render_suite
from publish.release_file import CardText
from publish.schedule import PYTHIA
from tests.cards import samples

GOLDEN = Path(__file__).parent / "golden"
BARE = CardText(title="Run 7", license="mit", language=())


def cards() -> Mapping[str, str]:
    """Name -> card. The bare ones know as little as a card can: a folder as source, no tokens, no tokenizer."""
    sizes = replace(samples.TINY, tokens_per_step=None, data_parallel=None)
    options = samples.options("pythia-tiny-seed1234")
    del options["data_path"], options["vocab_file"]
    rows = details({**options, "seed": 3}, sizes, last_step=64)
    lines = tuple(replace(samples.line(step), tokens=None, source_commit=None) for step in PYTHIA if step <= 64)
    folder = tuple(replace(line, source_commit=f"index:{samples.digest(line.step)}") for line in lines)
    return {
        "suite": render_suite(samples.suite()),
        "step1000": render_step(samples.step(1000)),
        "step0": render_step(samples.step(0, expected=samples.suite().expected)),
        "step143000": render_step(samples.step(143_000, comparisons=(samples.COMPARISON,))),
        "folder-suite": render_suite(samples.suite(source="runs/tiny", lines=folder)),
        "folder-step": render_step(samples.step(64, source="runs/tiny", source_commit=folder[0].source_commit)),
        "bare-suite": render_suite(
            samples.suite(
                repo="lab/run-7", text=BARE, details=rows, lines=lines, has_tokenizer=False, source="runs/7",
                expected=(), overrides=(), comparisons=(), explanation=None,
                gates=tuple(replace(gate, detail="passed on 8") for gate in samples.suite().gates),
            )
        ),
        "bare-step": render_step(
            samples.step(
                64, repo="lab/run-7", steps=(0, 64), text=BARE, details=rows, tokens=None, has_tokenizer=False,
                source="runs/7", source_commit=None, overrides=(),
            )
        ),
    }  # fmt: skip


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, card in cards().items():
        (GOLDEN / f"{name}.md").write_text(card, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
