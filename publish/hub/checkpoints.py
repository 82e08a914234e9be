"""``checkpoints.json`` on `main`: every step with its commit and digests, so that one read tells them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from publish.errors import HubError
from publish.hub.errata import Erratum
from publish.hub.manifest import Manifest
from publish.hub.records import canonical, read_record

NAME = "checkpoints.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One published step. `weights`, `card` and `manifest` are sha256 digests of files of the branch.

    `exceptions` say why it may be unlike the others, `equal` names the steps that hold the same weights on purpose,
    `errata` what was wrong with it before.
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
    equal: tuple[int, ...] = ()
    errata: tuple[Erratum, ...] = ()

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        commit: str,
        exceptions: Iterable[str] = (),
        equal: Iterable[int] = (),
        errata: Iterable[Erratum] = (),
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
            equal=tuple(sorted(equal)),
            errata=tuple(errata),
        )


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """All steps of a release, in order. `errata`: what was wrong with `main` before."""

    repo: str
    checkpoints: tuple[CheckpointRecord, ...]
    errata: tuple[Erratum, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        steps = [record.step for record in self.checkpoints]
        if steps != sorted(set(steps)):
            raise HubError("steps are not in order, or twice", f"{self.repo} {NAME}", "publish main again")

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes, where: object) -> Checkpoints:
        """Read one.

        Raises:
            HubError: malformed; it names the key.
        """
        return read_record(cls, content, where)

    def by_branch(self) -> dict[str, CheckpointRecord]:
        """Branch -> record."""
        return {record.branch: record for record in self.checkpoints}
