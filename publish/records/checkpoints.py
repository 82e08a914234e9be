"""``checkpoints.json`` on `main`: every step with its commit and digests, so that one read tells them all.

It also holds what the cards state (`run`, and in every record `published`), so that all of them can be written again
from this one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from publish.cards.facts import RunFacts
from publish.errors import HubError
from publish.records.codec import canonical, read_record
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.text import some

# What was wrong with a branch that was already published, since which commit, and which commit replaced it.


NAMED = 6  # branches spelled out in one sentence


@dataclass(frozen=True, slots=True)
class Erratum:
    """One repair of one branch. ``kinds`` are the audit's, ``detail`` says what it found.

    ``since``: the first commit with the defect; empty where the branch was missing. ``replaced_by``: the commit that
    mended it; empty for `main`, whose own commit is the one that first lists this.
    """

    branch: str
    kinds: tuple[str, ...]
    detail: str
    since: str
    replaced_by: str = ""


def sentences(errata: Iterable[Erratum]) -> tuple[str, ...]:
    """The errata for the suite's card: one sentence for all branches that had one defect."""
    groups: dict[tuple[tuple[str, ...], str], list[Erratum]] = {}
    for each in errata:
        groups.setdefault((each.kinds, each.detail), []).append(each)
    return tuple(_sentence(kinds, detail, same) for (kinds, detail), same in groups.items())


def _sentence(kinds: tuple[str, ...], detail: str, same: list[Erratum]) -> str:
    names = [each.branch for each in same]
    text = f"{some(names, NAMED)} ({', '.join(kinds)}): {detail}."
    if len(same) > 1:
        return f"{text} Replaced; checkpoints.json has the commits."
    only = same[0]
    since = f"Wrong since commit {only.since[:12]}" if only.since else "It was missing"
    return f"{text} {since}" + (f", replaced by {only.replaced_by[:12]}." if only.replaced_by else ", replaced.")


NAME = "checkpoints.json"
SCHEMA = 1
SHOWN_FIGURES = ("override_effect",)  # of a manifest's gates: what cards show
LAYER_TYPES = "layer_types"  # of a manifest's statistics: what plots show


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One published step. `weights`, `card` and `manifest` are sha256 digests of files of the branch.

    `published` is its manifest without the figures that no card shows: those of gates and of single tensors.
    `exceptions` say why it may be unlike the others, `equal` names the steps that hold the same weights on purpose.
    """

    step: int
    branch: str
    commit: str
    tokens: int | None
    weights: tuple[str, ...]
    source_commit: str | None
    plan: str
    card: str | None
    manifest: str
    exceptions: tuple[str, ...] = ()
    published: Manifest | None = None
    equal: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, manifest: Manifest, commit: str, exceptions: Iterable[str] = (), equal: Iterable[int] = ()
    ) -> CheckpointRecord:
        """The record of a branch whose tip is `commit` and holds `manifest`."""
        return cls(
            step=manifest.step,
            branch=manifest.branch,
            commit=commit,
            tokens=manifest.tokens,
            weights=manifest.weights,
            source_commit=manifest.source.commit,
            plan=manifest.plan,
            card=manifest.card,
            manifest=manifest.digest,
            exceptions=tuple(exceptions),
            published=_without_figures(manifest),
            equal=tuple(sorted(equal)),
        )

    def merge_metadata(self, record: CheckpointRecord) -> CheckpointRecord:
        """``record`` of the same step, later: while its weights are the same, what a suite says of them stays."""
        if self.weights != record.weights or self.published is None or record.published is None:
            return record
        published = replace(record.published, statistics=self.published.statistics)
        return replace(record, published=published, exceptions=self.exceptions, equal=self.equal)


def _without_figures(manifest: Manifest) -> Manifest:
    gates = tuple(
        replace(gate, figures={name: value for name, value in gate.figures.items() if name in SHOWN_FIGURES})
        for gate in manifest.gates
    )
    types = (manifest.statistics or {}).get(LAYER_TYPES)
    return replace(manifest, gates=gates, statistics=None if types is None else {LAYER_TYPES: types})


@dataclass(frozen=True, slots=True)
class PlotRecord:
    """A plot on `main`: what it was drawn from, and the git blob that came of it (other libraries draw other bytes)."""

    path: str
    facts: str  # sha256 of the figures it shows
    oid: str


@dataclass(frozen=True, slots=True)
class Remarks:
    """What there is to say of the suite as a whole; see `Checkpoints`."""

    lineage: tuple[Gate, ...] = ()
    errata: tuple[Erratum, ...] = ()


NO_REMARKS = Remarks()


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """All steps of a release, in order.

    `lineage` is what they show together (repeats, order, jumps), `errata` what was wrong with branches before.
    """

    repo: str
    checkpoints: tuple[CheckpointRecord, ...]
    run: RunFacts | None = None
    plots: tuple[PlotRecord, ...] = ()
    errata: tuple[Erratum, ...] = ()
    lineage: tuple[Gate, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        steps = [record.step for record in self.checkpoints]
        if steps != sorted(set(steps)):
            raise HubError("steps are not in order, or twice", f"{self.repo} {NAME}", "publish main again")

    @property
    def remarks(self) -> Remarks:
        return Remarks(self.lineage, self.errata)

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

    def of_weights(self, records: Mapping[int, CheckpointRecord]) -> bool:
        """Whether these are the steps of `records`, with the same weights, wherever their branches are now."""
        return {each.step: each.weights for each in self.checkpoints} == {s: r.weights for s, r in records.items()}

    def by_branch(self) -> dict[str, CheckpointRecord]:
        """Branch -> record."""
        return {record.branch: record for record in self.checkpoints}
