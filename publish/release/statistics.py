"""What a manifest keeps of a step's weights, and what the manifests of all steps show together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from publish.compare.layers import RANDOM, layer_type
from publish.compare.verdict import pool
from publish.lineage.repeats import LineageFinding
from publish.lineage.sketch import StepSketch, document, from_document
from publish.lineage.suite import trace
from publish.records.checkpoints import LAYER_TYPES, CheckpointRecord
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.release_file import Release

TENSORS = "tensors"  # the key of a manifest's statistics that holds the sketch


def statistics_of(sketch: StepSketch) -> dict[str, Any]:
    """``statistics`` of a manifest: the sketch, and the standard deviation of each layer type."""
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
class SuiteStatistics:
    """What the sketches of all steps show together: findings, the same as gates, and how far weights moved."""

    findings: tuple[LineageFinding, ...]
    gates: tuple[Gate, ...]
    trajectory: Trajectory

    def with_distances(self, records: Mapping[int, CheckpointRecord]) -> dict[int, CheckpointRecord]:
        """The records with the distance of every layer type from step 0 and from the step before."""
        return {step: self._with_distances(step, record) for step, record in records.items()}

    def _with_distances(self, step: int, record: CheckpointRecord) -> CheckpointRecord:
        published, steps = record.published, self.trajectory.steps
        if published is None or step not in steps:
            return record
        row = steps.index(step)
        types: dict[str, dict[str, float]] = dict((published.statistics or {}).get(LAYER_TYPES, {}))
        for kind in RANDOM & types.keys():
            figures = {"std": types[kind]["std"]}
            if steps[0] == 0 and row:
                figures["from_first"] = self.trajectory.relative(kind, row, 0)
            if row:
                figures["from_previous"] = self.trajectory.relative(kind, row, row - 1)
            types[kind] = {name: float(f"{value:.6g}") for name, value in figures.items()}
        return replace(record, published=replace(published, statistics={LAYER_TYPES: types}))


def suite_statistics(release: Release, manifests: Iterable[Manifest]) -> SuiteStatistics:
    """The statistics of the steps whose manifests keep a sketch.

    Raises:
        HubError: a sketch that cannot be read.
    """
    sketches = {manifest.step: sketch_of(manifest) for manifest in manifests}
    lineage = trace({step: sketch for step, sketch in sketches.items() if sketch is not None}, release)
    return SuiteStatistics(lineage.findings, lineage.gates(), lineage.trajectory)
