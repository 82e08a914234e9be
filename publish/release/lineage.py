"""The lineage of a release: what each manifest keeps of its weights, and what all of them together show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from publish.compare.layers import RANDOM
from publish.lineage.order import Course
from publish.lineage.repeats import LineageFinding
from publish.lineage.sketch import from_document
from publish.lineage.suite import trace
from publish.records.checkpoints import CheckpointRecord, Distance
from publish.records.gates import Gate
from publish.records.manifest import Manifest, six_digits
from publish.release.outcome import Failure
from publish.release.published_cards import READERS, read_manifest
from publish.release.state import Standing
from publish.release_file import Release


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
        return {step: replace(record, distances=self._distances(record)) for step, record in records.items()}

    def _distances(self, record: CheckpointRecord) -> tuple[Distance, ...]:
        steps = self.course.steps
        row = steps.index(record.step) if record.step in steps else 0
        if row == 0:
            return ()
        return tuple(
            Distance(
                layer_type.name,
                six_digits(self.course.relative(layer_type.name, row, 0)) if steps[0] == 0 else None,
                six_digits(self.course.relative(layer_type.name, row, row - 1)),
            )
            for layer_type in record.manifest.layer_types
            if layer_type.name in RANDOM
        )


def trace_manifests(release: Release, manifests: Iterable[Manifest]) -> Traced:
    """Every finding of the steps that these manifests sketch.

    Raises:
        HubError: a sketch that cannot be read.
    """
    sketches = {each.step: from_document(each.sketch, each.branch) for each in manifests if each.sketch}
    lineage = trace(sketches, release)
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
    if listing is not None and listing.notes.lineage and listing.same_weights(now.records):
        listed = {each.step: each for each in listing.checkpoints}
        known = {step: listed[step].merge_metadata(record) for step, record in now.records.items()}
        return Settled(replace(now, known=known, traced=listing.notes.lineage), listing.notes.lineage)
    others = [commit for step, commit in now.commits.items() if step not in own]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda commit: read_manifest(client, repo, commit), others)
        traced = trace_manifests(now.job.release, [*own.values(), *(each for each in read if each is not None)])
    standing = replace(now, known=traced.with_distances(now.records), traced=traced.gates)
    return Settled(standing, traced.gates, traced.failures())
