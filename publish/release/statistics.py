"""What a manifest keeps of a step's weights, and what the manifests of all steps show together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from publish.compare.model import RANDOM, layer_type
from publish.compare.verdict import pool
from publish.lineage.sketch import StepSketch, from_document
from publish.lineage.suite import LineageFinding, Trajectory, trace
from publish.records.checkpoints import CheckpointRecord, Distance
from publish.records.gates import Gate
from publish.records.manifest import LayerType, Manifest, six_digits
from publish.release_file import Release


def layer_types(sketch: StepSketch) -> tuple[LayerType, ...]:
    """The standard deviation of each layer type, to nine digits."""
    names: dict[str, list[str]] = {}
    for name in sketch:
        names.setdefault(layer_type(name), []).append(name)
    stds = {kind: pool(sketch[name].distribution for name in members).std for kind, members in names.items()}
    return tuple(LayerType(kind, float(f"{std:.9g}")) for kind, std in stds.items() if math.isfinite(std))


@dataclass(frozen=True)
class SuiteStatistics:
    """What the sketches of all steps show together: findings, the same as gates, and how far weights moved."""

    findings: tuple[LineageFinding, ...]
    gates: tuple[Gate, ...]
    trajectory: Trajectory

    def with_distances(self, records: Mapping[int, CheckpointRecord]) -> dict[int, CheckpointRecord]:
        """The records with the distance of every layer type from step 0 and from the step before."""
        return {step: replace(record, distances=self._distances(record)) for step, record in records.items()}

    def _distances(self, record: CheckpointRecord) -> tuple[Distance, ...]:
        steps = self.trajectory.steps
        row = steps.index(record.step) if record.step in steps else 0
        if row == 0:
            return ()
        return tuple(
            Distance(
                kind.name,
                six_digits(self.trajectory.relative(kind.name, row, 0)) if steps[0] == 0 else None,
                six_digits(self.trajectory.relative(kind.name, row, row - 1)),
            )
            for kind in record.manifest.layer_types
            if kind.name in RANDOM
        )


def suite_statistics(release: Release, manifests: Iterable[Manifest]) -> SuiteStatistics:
    """The statistics of the steps whose manifests keep a sketch.

    Raises:
        HubError: a sketch that cannot be read.
    """
    sketches = {
        manifest.step: from_document(manifest.sketch, manifest.branch) for manifest in manifests if manifest.sketch
    }
    lineage = trace(sketches, release)
    return SuiteStatistics(lineage.findings, lineage.gates(), lineage.trajectory)
