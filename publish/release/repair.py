"""A repair: which branches an audit found wrong, and how each of them is published again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from publish.errors import ReleaseError, StorageError
from publish.hub.branch_files import GITATTRIBUTES, BranchFile, by_path, differences
from publish.hub.downloads import fetch_file
from publish.hub.reads import latest_commits, list_tree
from publish.hub.repository import Base
from publish.hub.transaction import publish_branch
from publish.records.checkpoints import Erratum
from publish.records.codec import read_record
from publish.records.files import README
from publish.records.findings import AuditReport, Finding
from publish.release.state import MAIN, ReleaseState

MAIN_ONLY = frozenset({"main-not-final"})
MANUAL = frozenset({"unexpected-branch"})  # whoever made the branch may need it


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
        for step in finding.steps if finding.kind not in MAIN_ONLY | MANUAL else ():
            steps[step] = (*steps.get(step, ()), finding)
    tips = next((audited.tips for audited in audit.repos if audited.repo == target), {})
    left = tuple(f"{each.kind}: {each.detail}" for each in mine if each.kind in MANUAL)
    return Repair(dict(sorted(steps.items())), tuple(each for each in mine if _of_main(each, target)), tips, left)


def _of_main(finding: Finding, target: str) -> bool:
    on_main = any(each.branch == "main" and each.repo in ("", target) for each in finding.evidence)
    return finding.kind in MAIN_ONLY or (on_main and finding.kind not in MANUAL and not finding.steps)


_SHARED = frozenset({"duplicate-weights", "mixed-shards"})  # kinds that name the right step beside the wrong ones


class BranchRepair:
    """A repair while it runs: where each branch starts from, and what to record of it. Shared by commit threads."""

    def __init__(self, repair: Repair, state: ReleaseState, base: Base) -> None:
        self.repair = repair
        self._state, self._base, self._client = state, base, state.client
        self._tips: Mapping[str, str] = repair.tips or state.tips
        listed = state.listing.by_branch() if state.listing else {}
        self._right = {branch: record.commit for branch, record in listed.items()}
        self._errata: list[tuple[int, Erratum]] = []
        self.emptied: list[str] = []  # branches that took one more commit

    def wrong_steps(self) -> tuple[int, ...]:
        """The chosen steps to publish again. Of steps with equal weights the audit cannot tell which one is right: a
        step whose branch is as recorded is."""
        return tuple(
            step
            for step in self._state.job.chosen
            if step in self.repair.steps
            and not (
                self._state.steps[step].state == "published"
                and {finding.kind for finding in self.repair.steps[step]} <= _SHARED
            )
        )

    def tip_for(self, branch: str, files: Sequence[BranchFile]) -> str | None:
        """The tip to publish ``files`` on: the one that the audit saw, so that a branch that moved is not overwritten.

        If an interrupted run left the branch empty or complete, its current tip. A branch that keeps its card in LFS
        is emptied first, by a commit of its own: only then does the card leave LFS.

        Raises:
            HubError: the branch moved, or the Hub refuses.
        """
        client, base, current = self._client, self._base, self._state.tips.get(branch)
        if current is None or current == base.commit:
            return current
        entries = {entry.path: entry for entry in list_tree(client, base.repo, current)}
        plain = next(entry for entry in list_tree(client, base.repo, base.commit) if entry.path == GITATTRIBUTES)
        attributes, card = entries.get(GITATTRIBUTES), entries.get(README)
        in_lfs = attributes is None or attributes.oid != plain.oid or (card is not None and card.lfs_sha256 is not None)
        if current != self._tips.get(branch):
            complete = not in_lfs and not differences(entries.values(), by_path(files, branch))
            return current if complete or entries.keys() <= {GITATTRIBUTES} else self._tips.get(branch)
        if not in_lfs:
            return current
        only = [BranchFile.of_bytes(GITATTRIBUTES, fetch_file(client, base.repo, base.commit, plain))]
        published = publish_branch(client, base, branch, only, f"Empty {branch} to publish it again", tip=current)
        self.emptied.append(branch)
        return published.commit

    def note(self, branch: str, step: int, commit: str) -> None:
        """Record that ``branch`` is at ``commit`` now. A branch that is where the audit saw it was right."""
        if commit != self._tips.get(branch):
            self._errata.append((step, self._erratum(branch, self.repair.steps[step], commit)))

    def errata(self, listed: Sequence[Erratum]) -> tuple[Erratum, ...]:
        """``listed`` and what this repair adds, by step, each once."""
        new = [erratum for _, erratum in sorted(self._errata, key=lambda item: item[0])]
        if self.repair.main:
            new.append(self._erratum(MAIN, self.repair.main, ""))
        known = {(erratum.branch, erratum.detail, erratum.replaced_by) for erratum in listed}
        return (*listed, *(e for e in new if (e.branch, e.detail, e.replaced_by) not in known))

    def _erratum(self, branch: str, findings: Sequence[Finding], commit: str) -> Erratum:
        kinds = tuple(dict.fromkeys(finding.kind for finding in findings))
        detail = "; ".join(dict.fromkeys(finding.detail for finding in findings))
        return Erratum(branch, kinds, detail, self._since(branch), commit)

    def _since(self, branch: str) -> str:
        """The first commit after the right one, as far back as one page of history goes; empty for a missing branch."""
        since = tip = self._tips.get(branch, "")
        for commit in latest_commits(self._client, self._base.repo, tip) if tip else ():
            if commit.id in (self._right.get(branch), self._base.commit):
                break
            since = commit.id
        return since
