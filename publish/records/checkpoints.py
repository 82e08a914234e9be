"""``checkpoints.json`` on ``main``: every step with its commit and manifest, so that one read answers for all of them.

It holds all that the cards state, so that they can be written again from this one file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from publish.errors import HubError
from publish.records.codec import canonical, read_record
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.records.run import RunFacts

NAME = "checkpoints.json"
SCHEMA = 1
SHOWN_FIGURES = ("override_effect",)  # of a manifest's gates: what cards show


@dataclass(frozen=True, slots=True)
class Erratum:
    """One repair of one branch. ``kinds`` are the audit's, ``detail`` says what it found.

    ``since``: the first commit with the defect; empty where the branch was missing. ``replaced_by``: the commit that
    repaired it; empty for ``main``, whose own commit is the one that first lists this.
    """

    branch: str
    kinds: tuple[str, ...]
    detail: str
    since: str
    replaced_by: str = ""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the weights of a layer type are from step 0 and from the step before, relative to the norm there.

    None if there is no such step.
    """

    layer_type: str
    from_first: float | None
    from_previous: float | None


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One published step: the commit of its branch, and its manifest without what cards do not show.

    ``manifest_sha256`` is of the branch's own ``publish.json``. ``equal`` are the steps that hold the same weights on
    purpose; they and ``distances`` relate it to the rest of the suite.
    """

    commit: str
    manifest: Manifest
    manifest_sha256: str
    equal: tuple[int, ...] = ()
    distances: tuple[Distance, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, commit: str) -> CheckpointRecord:
        """The record of a branch whose tip is ``commit`` and holds ``manifest``."""
        return cls(commit, _shown(manifest), manifest.digest)

    def merge_metadata(self, later: CheckpointRecord) -> CheckpointRecord:
        """``later``, a record of the same step; if its weights are the same, with what this one says of the suite."""
        return replace(later, equal=self.equal, distances=self.distances) if self.weights == later.weights else later

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def branch(self) -> str:
        return self.manifest.branch

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def format(self) -> str:
        return self.manifest.format

    @property
    def weights(self) -> tuple[str, ...]:
        return self.manifest.weights


def _shown(manifest: Manifest) -> Manifest:
    gates = tuple(
        replace(gate, figures={name: value for name, value in gate.figures.items() if name in SHOWN_FIGURES})
        for gate in manifest.gates
    )
    return replace(manifest, gates=gates, sketch={})


@dataclass(frozen=True, slots=True)
class PlotRecord:
    """A plot on ``main``: a sha256 of the figures that it shows, and its git blob, since libraries draw differently."""

    path: str
    figures_sha256: str
    oid: str


@dataclass(frozen=True, slots=True)
class SuiteNotes:
    """What the steps show together (repeats, order, jumps), and what was wrong with branches before."""

    lineage: tuple[Gate, ...] = ()
    errata: tuple[Erratum, ...] = ()


NO_NOTES = SuiteNotes()


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """All steps of a release, in order."""

    repo: str
    checkpoints: tuple[CheckpointRecord, ...]
    run: RunFacts
    plots: tuple[PlotRecord, ...] = ()
    notes: SuiteNotes = NO_NOTES
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        steps = [record.step for record in self.checkpoints]
        if steps != sorted(set(steps)):
            raise HubError("steps are out of order, or listed twice", f"{self.repo} {NAME}", "publish main again")

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(self)

    @classmethod
    def from_bytes(cls, content: bytes, where: object) -> Checkpoints:
        """Read one.

        Raises:
            HubError: malformed; it names the key.
        """
        return read_record(cls, content, where)

    def same_weights(self, records: Mapping[int, CheckpointRecord]) -> bool:
        """Whether these are the steps of ``records`` with the same weights, whatever their commits are now."""
        listed = {record.step: record.weights for record in self.checkpoints}
        return listed == {step: record.weights for step, record in records.items()}

    def by_branch(self) -> dict[str, CheckpointRecord]:
        """Branch -> record."""
        return {record.branch: record for record in self.checkpoints}
