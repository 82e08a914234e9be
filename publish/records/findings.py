"""What an audit found: written by ``publish audit --json``, read again by a repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """One file of one branch that a finding rests on; ``path`` is empty where the branch as a whole is meant.

    ``sha256`` is the git blob id for a file that is not in LFS. ``note`` says what is wrong with it.
    """

    branch: str
    commit: str
    path: str = ""
    sha256: str = ""
    size: int | None = None
    note: str = ""
    repo: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. ``steps`` are those concerned, in order; ``repo`` may be several, separated by commas."""

    kind: str
    steps: tuple[int, ...]
    detail: str
    evidence: tuple[Evidence, ...] = ()
    repo: str = ""

    @property
    def touches(self) -> frozenset[tuple[str, str]]:
        """(branch, path) that it explains; an empty path stands for the whole branch."""
        return frozenset((evidence.branch, evidence.path) for evidence in self.evidence)


@dataclass(frozen=True, slots=True)
class AuditedRepo:
    """A repo that was audited: branch -> commit, the schedule it was held against, and what is equal on purpose."""

    repo: str
    tips: Mapping[str, str] = field(default_factory=dict)
    schedule: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditReport:
    """A whole audit. Bytes are response bodies as they came over the wire; ``weight_bytes`` those of tensors."""

    repos: tuple[AuditedRepo, ...]
    findings: tuple[Finding, ...]
    requests: int = 0
    bytes_downloaded: int = 0
    weight_bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def branches(self) -> int:
        return sum(len(audited.tips) for audited in self.repos)

    @property
    def repo(self) -> str:
        return ", ".join(audited.repo for audited in self.repos)
