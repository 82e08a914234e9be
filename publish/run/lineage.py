"""The lineage of a release: what each manifest keeps of its weights, and what all of them together show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from publish.compare.chance import pool
from publish.compare.course import Course
from publish.compare.finding import LineageFinding
from publish.compare.layers import RANDOM, layer_type
from publish.compare.lineage import trace
from publish.compare.sketch import StepSketch, document, from_document
from publish.hub.checkpoints import LAYER_TYPES, CheckpointRecord
from publish.hub.manifest import GateRecord, Manifest
from publish.release import Release
from publish.run.outcome import Failure

TENSORS = "tensors"  # of a manifest's statistics: the sketch


def statistics_of(sketch: StepSketch) -> dict[str, Any]:
    """``statistics`` of a manifest: the sketch, and standard deviations by layer type."""
    types: dict[str, list[str]] = {}
    for name in sketch:
        types.setdefault(layer_type(name), []).append(name)
    spreads = {kind: pool(sketch[name].distribution for name in names).std for kind, names in types.items()}
    return {
        TENSORS: document(sketch),
        LAYER_TYPES: {kind: {"std": float(f"{std:.9g}")} for kind, std in spreads.items() if std == std},
    }


def sketch_of(manifest: Manifest) -> StepSketch | None:
    """The sketch that a manifest keeps; None where it keeps none.

    Raises:
        HubError: it cannot be read.
    """
    found = (manifest.statistics or {}).get(TENSORS)
    return from_document(found, manifest.branch) if isinstance(found, Mapping) else None


@dataclass(frozen=True)
class Traced:
    """What the manifests of a release show together."""

    findings: tuple[LineageFinding, ...]
    gates: tuple[GateRecord, ...]
    course: Course

    def failures(self) -> tuple[Failure, ...]:
        """The findings as failures, each under the last of its steps."""
        return tuple(Failure(each.steps[-1], each.kind, each.detail, each.fix) for each in self.findings)

    def with_distances(self, records: Mapping[int, CheckpointRecord]) -> dict[int, CheckpointRecord]:
        """The records with the distance of every layer type from step 0 and from the step before."""
        return {step: self._with_distances(step, record) for step, record in records.items()}

    def _with_distances(self, step: int, record: CheckpointRecord) -> CheckpointRecord:
        published, steps = record.published, self.course.steps
        if published is None or step not in steps:
            return record
        row = steps.index(step)
        types: dict[str, dict[str, float]] = dict((published.statistics or {}).get(LAYER_TYPES, {}))
        for kind in RANDOM & types.keys():
            figures = {"std": types[kind]["std"]}
            if steps[0] == 0 and row:
                figures["from_first"] = self.course.relative(kind, row, 0)
            if row:
                figures["from_previous"] = self.course.relative(kind, row, row - 1)
            types[kind] = {name: float(f"{value:.6g}") for name, value in figures.items()}
        return replace(record, published=replace(published, statistics={LAYER_TYPES: types}))


def trace_manifests(release: Release, manifests: Iterable[Manifest]) -> Traced:
    """Every finding of the steps whose manifests keep a sketch.

    Raises:
        HubError: a sketch that cannot be read.
    """
    sketches = {manifest.step: sketch_of(manifest) for manifest in manifests}
    lineage = trace({step: each for step, each in sketches.items() if each is not None}, release)
    gates = tuple(GateRecord(each.name, each.outcome, each.detail, dict(each.figures)) for each in lineage.gates())
    return Traced(lineage.findings, gates, lineage.course)
