"""What became of a release: steps published, skipped and failed, with reasons and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from publish.errors import PublishError
from publish.records.gates import Gate
from publish.records.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that was not published: ``kind`` for scripts, the rest for people."""

    step: int
    kind: str
    detail: str
    fix: str

    @classmethod
    def of(cls, step: int, error: PublishError) -> Failure:
        """The failure that an error of one step makes."""
        return cls(
            step, type(error).__name__.removesuffix("Error").lower(), f"{error.what} (at {error.where})", error.fix
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """Files that a branch held and nobody's manifest named: a finding. They are gone with the branch's commit."""

    branch: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A step that is on the Hub; ``removed`` are files that its branch held before and should not have."""

    step: int
    commit: str
    manifest: Manifest
    made: bool
    bytes_read: int
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The whole run.

    ``lineage`` is what the steps show together, ``commits`` what this run committed, ``seconds`` for people, not for
    manifests.
    """

    target: str
    address: str
    published: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    failed: tuple[Failure, ...] = ()
    commits: int = 0
    bytes_read: int = 0
    bytes_uploaded: int = 0
    seconds: float = 0.0
    main: str = ""
    left: tuple[str, ...] = ()  # findings of an audit that only a person should mend
    gates: dict[str, int] = field(default_factory=dict)
    lineage: tuple[Gate, ...] = ()
    removed: tuple[Removed, ...] = ()

    @classmethod
    def of_steps(cls, target: str, address: str, done: Iterable[Done], **more: Any) -> Outcome:
        """The outcome with what follows from the steps that were done; ``more`` are the other fields."""
        steps = sorted(done, key=lambda each: each.step)
        made = [each for each in steps if each.made]
        gates = Counter(f"{gate.name} {gate.outcome}" for each in steps for gate in each.manifest.gates)
        return cls(
            target,
            address,
            published=tuple(each.step for each in made),
            bytes_read=sum(each.bytes_read for each in steps),
            bytes_uploaded=sum(file.size for each in made for file in each.manifest.files),
            gates=dict(gates),
            removed=tuple(Removed(f"step{each.step}", each.removed) for each in made if each.removed),
            **more,
        )

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``."""
        return {
            "target": self.target,
            "address": self.address,
            "published": list(self.published),
            "skipped": list(self.skipped),
            "failed": [
                {"step": each.step, "kind": each.kind, "detail": each.detail, "fix": each.fix} for each in self.failed
            ],
            "commits": self.commits,
            "bytes_read": self.bytes_read,
            "bytes_uploaded": self.bytes_uploaded,
            "seconds": round(self.seconds, 2),
            "main": self.main,
            "left": list(self.left),
            "gates": dict(sorted(self.gates.items())),
            "lineage": [asdict(each) for each in self.lineage],
            "removed": [{"branch": each.branch, "paths": list(each.paths)} for each in self.removed],
        }
