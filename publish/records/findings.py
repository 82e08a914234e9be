"""What an audit found: written by ``publish audit --json``, read again by a repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file of a branch that a finding rests on; the branch itself where ``path`` is empty.

    ``sha256`` is the git blob id for a file that is not in LFS. ``note`` says what is wrong with the file.
    """

    branch: str
    commit: str = ""
    path: str = ""
    sha256: str = ""
    size: int | None = None
    note: str = ""
    repo: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, and the branches concerned. ``steps`` are those of the branches, or steps without one, in order.

    In a suite whose names count tokens or words, ``steps`` are positions on that axis.

    ``repo`` may be several, separated by commas.
    """

    kind: str
    branches: tuple[str, ...]
    steps: tuple[int, ...]
    detail: str
    repo: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditedRepo:
    """A repo that was audited.

    ``format``: ``hf`` for Hugging Face checkpoints. ``axis``: ``steps``, ``tokens`` or ``words``, which the names of
    its checkpoints count. ``names``: how many follow which convention, by an example of it. ``schedule``: the steps
    that were expected, and who says so. ``notes``: what looks like a finding and is not one. ``tips``: branch -> commit
    that was examined.
    """

    repo: str
    format: str = ""
    axis: str = "steps"
    names: Mapping[str, int] = field(default_factory=dict)
    schedule: str = ""
    notes: tuple[str, ...] = ()
    tips: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """A whole audit. Bytes are response bodies as transferred; ``weight_bytes`` are those of tensors among them."""

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
