"""What an audit found, as work for a release: which branches to publish again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from publish.errors import ReleaseError, StorageError
from publish.records.codec import read_record
from publish.records.findings import AuditReport, Finding

OF_MAIN_ALONE = frozenset({"main-not-final"})
NOT_OURS_TO_MEND = frozenset({"unexpected-branch"})  # whoever made the branch may need it


@dataclass(frozen=True, slots=True)
class Repair:
    """The steps to publish again, with what was found on each; ``main`` is published again in any case.

    ``tips``: the branches as the audit saw them; nothing newer is overwritten. ``left``: what nobody but a person
    should mend.
    """

    steps: Mapping[int, tuple[Finding, ...]]
    main: tuple[Finding, ...]
    tips: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def read_repair(path: Path, target: str) -> Repair:
    """The repair of ``target`` that an audit's JSON asks for.

    Raises:
        StorageError: the file cannot be read. HubError: it is no audit's JSON. ReleaseError: it is of other repos.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = f"make it with: publish audit {target} --json > {path.name}"
        raise StorageError(f"cannot read the audit: {error.strerror}", path, fix) from error
    audit = read_record(AuditReport, content, path)
    if target not in audit.repo.split(", "):
        raise ReleaseError(f"the audit is of {audit.repo}, not of {target}", path, "audit the release's own target")
    mine = [each for each in audit.findings if target in (each.repo or target).split(", ")]
    steps: dict[int, tuple[Finding, ...]] = {}
    for finding in mine:
        for step in finding.steps if finding.kind not in OF_MAIN_ALONE | NOT_OURS_TO_MEND else ():
            steps[step] = (*steps.get(step, ()), finding)
    tips = next((audited.tips for audited in audit.repos if audited.repo == target), {})
    left = tuple(f"{each.kind}: {each.detail}" for each in mine if each.kind in NOT_OURS_TO_MEND)
    return Repair(dict(sorted(steps.items())), tuple(each for each in mine if _of_main(each, target)), tips, left)


def _of_main(finding: Finding, target: str) -> bool:
    on_main = any(each.branch == "main" and each.repo in ("", target) for each in finding.evidence)
    return finding.kind in OF_MAIN_ALONE or (on_main and finding.kind not in NOT_OURS_TO_MEND and not finding.steps)
