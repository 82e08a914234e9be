"""Write the golden cards again, after a change that is meant, and read the diff:

python -m tests.cards.regenerate
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from publish.cards.facts import StepFacts, SuiteFacts
from publish.cards.render import render_step, render_suite
from publish.records.checkpoints import Erratum, SuiteNotes
from publish.records.gates import Gate
from publish.records.manifest import Source, Training
from publish.records.run import RunFacts, config_facts
from publish.release_file import CardMetadata, Release
from publish.schedule import PYTHIA
from tests.cards import samples

GOLDEN = Path(__file__).parent / "golden"
NOTES = SuiteNotes(
    lineage=(
        Gate("repeats", "passed", "154 steps, none with another's weights but as declared"),
        Gate("lineage", "passed", "each of 154 steps lies between its neighbours, without a jump"),
    ),
    errata=(
        Erratum("step64", ("size-mismatch",), "step64: the file is 12 bytes short", "a" * 40, "b" * 40),
        Erratum("step2", ("missing-step",), "there is no branch of step 2", "", "c" * 40),
        *(Erratum(f"step{n}", ("duplicate-weights",), "step1 has their weights", "d" * 40, "e" * 40) for n in (8, 16)),
    ),
)


def bare() -> tuple[SuiteFacts, StepFacts]:
    """Cards that know as little as cards can: a folder without fingerprints, no tokens, no tokenizer."""
    options = samples.options("pythia-tiny-seed1234")
    del options["data_path"], options["vocab_file"]
    sizes = replace(samples.TINY, tokens_per_step=None, data_parallel=None)
    run = RunFacts(config_facts({**options, "seed": 3}), sizes)
    release = Release("runs/7", "lab/run-7", CardMetadata(title="Run 7", license="mit", language=()))
    manifests = tuple(
        samples.manifest(
            step, tokens=None, tokenizer=None, source=Source("7"), overrides=(), training=Training(iteration=step)
        )
        for step in PYTHIA
        if step <= 64
    )
    return SuiteFacts(release, run, manifests), StepFacts(release, run, (0, 64), manifests[-1])


def cards() -> Mapping[str, str]:
    """Name -> card."""
    folder = tuple(
        replace(manifest, source=Source("tiny", f"index:{samples.digest(manifest.step)}"))
        for manifest in samples.checkpoints()
        if manifest.step <= 64
    )
    bare_suite, bare_step = bare()
    return {
        "suite": render_suite(samples.suite(notes=NOTES)),
        "step1000": render_step(samples.step(1000)),
        "step0": render_step(samples.step(0, explanation=samples.EXPLANATION)),
        "step143000": render_step(samples.step(143_000, comparisons=(samples.COMPARISON,))),
        "folder-suite": render_suite(samples.suite(checkpoints=folder)),
        "folder-step": render_step(samples.step(64, source=folder[-1].source)),
        "bare-suite": render_suite(bare_suite),
        "bare-step": render_step(bare_step),
    }


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, card in cards().items():
        (GOLDEN / f"{name}.md").write_text(card, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
