"""What became of a release: steps published, skipped and failed, with reasons and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from publish.errors import PublishError
from publish.hub.manifest import GateRecord


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
    lineage: tuple[GateRecord, ...] = ()

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
        }
