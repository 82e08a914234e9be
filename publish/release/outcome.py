"""The result of a release: branches published, skipped and failed, with reasons and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from publish.errors import PublishError
from publish.records.gates import Gate
from publish.records.manifest import Manifest

Main = Literal["published", "unchanged", "waiting", "held", "failed"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A branch that was not published. ``step`` is None for ``main``; ``kind`` is for scripts, the rest for people."""

    branch: str
    step: int | None
    kind: str
    detail: str
    fix: str

    @classmethod
    def of(cls, branch: str, step: int | None, error: PublishError) -> Failure:
        """The failure that an error causes."""
        kind = type(error).__name__.removesuffix("Error").lower()
        return cls(branch, step, kind, f"{error.what} (at {error.where})", error.fix)


@dataclass(frozen=True)
class CommittedBranch:
    """A step's branch that is on the Hub as it was verified.

    ``committed`` is False where the branch held exactly these files before; ``removed`` are paths that it held and
    that its manifest does not name.
    """

    branch: str
    step: int
    commit: str
    manifest: Manifest
    committed: bool
    bytes_read: int
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MainResult:
    """What became of ``main``: a word for scripts, a sentence for people. ``lineage``: what the steps show together."""

    status: Main
    detail: str
    lineage: tuple[Gate, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A whole release. ``commits`` are those of this run; ``left`` are audit findings that need manual action."""

    target: str
    address: str
    main: MainResult
    published: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    failed: tuple[Failure, ...] = ()
    removed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    left: tuple[str, ...] = ()
    gates: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    bytes_read: int = 0
    bytes_uploaded: int = 0
    seconds: float = 0.0

    @classmethod
    def of_branches(
        cls, target: str, address: str, main: MainResult, branches: Iterable[CommittedBranch], **fields: Any
    ) -> Outcome:
        """The outcome with what follows from the branches of this run; ``fields`` are the others."""
        branches = sorted(branches, key=lambda branch: branch.step)
        committed = [branch for branch in branches if branch.committed]
        gates = Counter(f"{gate.name} {gate.outcome}" for branch in branches for gate in branch.manifest.gates)
        return cls(
            target,
            address,
            main,
            published=tuple(branch.step for branch in committed),
            removed=tuple((branch.branch, branch.removed) for branch in committed if branch.removed),
            gates=dict(sorted(gates.items())),
            bytes_read=sum(branch.bytes_read for branch in branches),
            bytes_uploaded=sum(file.size for branch in committed for file in branch.manifest.files),
            **fields,
        )

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish all-steps`` (docs/cli.md)."""
        return {
            "target": self.target,
            "address": self.address,
            "published": list(self.published),
            "skipped": list(self.skipped),
            "failed": [asdict(failure) for failure in self.failed],
            "removed": [{"branch": branch, "paths": list(paths)} for branch, paths in self.removed],
            "left": list(self.left),
            "gates": self.gates,
            "lineage": [asdict(gate) for gate in self.main.lineage],
            "main": self.main.status,
            "main_detail": self.main.detail,
            "commits": self.commits,
            "bytes_read": self.bytes_read,
            "bytes_uploaded": self.bytes_uploaded,
            "seconds": round(self.seconds, 2),
        }
