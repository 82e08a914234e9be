"""Sketches of the real runs, drawn once, and suites with a defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from publish.convert.plan import make_plan
from publish.convert.writer import Digest, tensor_bytes
from publish.lineage.sketch import Sketcher, StepSketch, TensorSketch, document, from_document
from publish.lineage.suite import LineageFinding, trace
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import read_config
from publish.release_file import CardMetadata, ExpectedEqual, ExpectedJump, Release
from publish.sources.runs import Location, open_run

Suite = dict[int, StepSketch]
MATRIX, BIAS = "gpt_neox.layers.0.attention.dense.weight", "gpt_neox.layers.0.attention.dense.bias"


def sketches(run: Path) -> Suite:
    """Every step of a run as its manifest would keep it."""
    found = open_run(Location(run))
    suite: Suite = {}
    for step, source in found.steps.items():
        files = found.open(source)
        checkpoint = RawCheckpoint.open(files)
        plan = make_plan(checkpoint, read_config(checkpoint))
        sketcher = Sketcher(plan)
        for recipe in plan.recipes:
            digest = Digest()
            for chunk in tensor_bytes(checkpoint, recipe):
                sketcher(recipe, chunk, digest)
                digest.update(chunk)
        suite[step] = from_document(document(sketcher.result()), run)
        files.close()
    return suite


def release(*jumps: int, equal: tuple[int, ...] = (0, 1)) -> Release:
    return Release(
        "source",
        "alice/tiny",
        CardMetadata("tiny"),
        expect=(ExpectedEqual(equal, "rate 0"),) if equal else (),
        jumps=(ExpectedJump(jumps, "so it was"),) if jumps else (),
    )


def found(suite: Suite, wanted: Release | None = None) -> tuple[LineageFinding, ...]:
    return trace(suite, wanted or release()).findings


def changed(sketch: StepSketch, name: str, change: Callable[[TensorSketch], TensorSketch]) -> StepSketch:
    return {**sketch, name: change(sketch[name])}


def zeroed(each: TensorSketch) -> TensorSketch:
    return replace(each, digest="0" * 32, unsigned="0" * 32, mean=0.0, std=0.0, bits=bytes(len(each.bits)))
