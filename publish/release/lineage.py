"""The lineage of a release: what each manifest keeps of its weights, and what all of them together show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from publish.compare.layers import RANDOM, layer_type
from publish.compare.verdict import pool
from publish.lineage.order import Course
from publish.lineage.repeats import LineageFinding
from publish.lineage.sketch import StepSketch, document, from_document
from publish.lineage.suite import trace
from publish.records.checkpoints import LAYER_TYPES, CheckpointRecord
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.release.outcome import Failure
from publish.release.published_cards import READERS, read_manifest
from publish.release.state import Standing
from publish.release_file import Release

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
    gates: tuple[Gate, ...]
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
    gates = lineage.gates()
    return Traced(lineage.findings, gates, lineage.course)


@dataclass(frozen=True)
class Settled:
    """Where a release stands, with what its steps show together; ``failures`` hold ``main`` back."""

    standing: Standing
    gates: tuple[Gate, ...]
    failures: tuple[Failure, ...] = ()


def settle(now: Standing, own: Mapping[int, Manifest]) -> Settled:
    """Trace the lineage of all published steps.

    ``own`` are the manifests that this process made; others are read, unless ``main`` lists what these very weights
    show.

    Raises:
        HubError: no access, no connection, or a manifest that cannot be read.
    """
    client, repo = now.client, now.job.release.target
    listing = now.listing
    if listing is not None and listing.lineage and listing.of_weights(now.records):
        listed = {each.step: each for each in listing.checkpoints}
        known = {step: listed[step].again(record) for step, record in now.records.items()}
        return Settled(replace(now, known=known, traced=listing.lineage), listing.lineage)
    others = [commit for step, commit in now.commits.items() if step not in own]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda commit: read_manifest(client, repo, commit), others)
        traced = trace_manifests(now.job.release, [*own.values(), *(each for each in read if each is not None)])
    standing = replace(now, known=traced.with_distances(now.records), traced=traced.gates)
    return Settled(standing, traced.gates, traced.failures())
