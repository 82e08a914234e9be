"""A repair while it runs: which steps, where each branch starts from, and what to record of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publish.hub.branch_files import GITATTRIBUTES, README, BranchFile, by_path, differences
from publish.hub.downloads import fetch_file
from publish.hub.reads import latest_commits, list_tree
from publish.hub.repository import Base
from publish.hub.transaction import publish_branch
from publish.records.checkpoints import Erratum
from publish.release.repair import Repair
from publish.release.state import MAIN, Standing, StepStatus

SHARED = frozenset({"duplicate-weights", "mixed-shards"})  # kinds that name the right step with the wrong ones


def wrong_steps(repair: Repair, before: Standing) -> dict[int, StepStatus]:
    """The chosen steps to publish again. Of equal ones an audit cannot tell which is right: those as recorded are."""
    chosen = [step for step in before.job.chosen if step in repair.steps]
    right = [
        step
        for step in chosen
        if before.steps[step].state == "published" and {each.kind for each in repair.steps[step]} <= SHARED
    ]
    return {step: before.steps[step] for step in chosen if step not in right}


class Mending:
    """Shared by the threads of a release."""

    def __init__(self, repair: Repair, before: Standing, base: Base) -> None:
        self.repair = repair
        self._before = before
        self._base = base
        self._client = before.client
        self._tips: Mapping[str, str] = repair.tips or before.branches
        listed = before.listing.by_branch() if before.listing else {}
        self._right = {branch: record.commit for branch, record in listed.items()}
        self._made: list[Erratum] = []
        self.emptied: list[str] = []  # branches that took a commit more

    def begin(self, branch: str, files: Sequence[BranchFile]) -> str | None:
        """The tip to publish ``files`` on: what the audit saw, so that a branch that moved since is not overwritten.

        One that holds them already, or nothing, after an interruption, is gone on from. A branch that keeps its card
        in LFS is emptied first, by a commit of its own: only so the card leaves LFS.

        Raises:
            HubError: the branch moved, the Hub refuses.
        """
        client, base, current = self._client, self._base, self._before.branches.get(branch)
        if current is None or current == base.commit:
            return current
        entries = {entry.path: entry for entry in list_tree(client, base.repo, current)}
        plain = next(each for each in list_tree(client, base.repo, base.commit) if each.path == GITATTRIBUTES)
        attributes, card = entries.get(GITATTRIBUTES), entries.get(README)
        in_lfs = attributes is None or attributes.oid != plain.oid or (card is not None and card.lfs_sha256 is not None)
        if current != self._tips.get(branch):
            done = not in_lfs and not differences(entries.values(), by_path(files, branch))
            return current if done or entries.keys() <= {GITATTRIBUTES} else self._tips.get(branch)
        if not in_lfs:
            return current
        wanted = [BranchFile.of_bytes(GITATTRIBUTES, fetch_file(client, base.repo, base.commit, plain))]
        emptied = publish_branch(client, base, branch, wanted, f"Empty {branch} to publish it again", tip=current)
        self.emptied.append(branch)
        return emptied.commit

    def ended(self, step: int, commit: str) -> None:
        """Note that the branch of ``step`` is at ``commit`` now; one that is where the audit saw it was right."""
        branch = f"step{step}"
        if commit != self._tips.get(branch):
            self._made.append(self._erratum(branch, step, commit))

    def errata(self, listed: Sequence[Erratum]) -> tuple[Erratum, ...]:
        """``listed`` and what this repair adds, by branch as in the release, each once."""
        new = sorted(self._made, key=lambda each: int(each.branch.removeprefix("step")))
        if self.repair.main:
            new.append(self._erratum(MAIN, None, ""))
        known = {(each.branch, each.detail, each.replaced_by) for each in listed}
        return (*listed, *(each for each in new if (each.branch, each.detail, each.replaced_by) not in known))

    def _erratum(self, branch: str, step: int | None, commit: str) -> Erratum:
        found = self.repair.main if step is None else self.repair.steps[step]
        kinds = tuple(dict.fromkeys(each.kind for each in found))
        detail = "; ".join(dict.fromkeys(each.detail for each in found))
        return Erratum(branch, kinds, detail, self._since(branch), commit)

    def _since(self, branch: str) -> str:
        """The first commit after the one that was right, as far back as a page of history goes; empty: missing."""
        since = before = self._tips.get(branch, "")
        for commit in latest_commits(self._client, self._base.repo, before) if before else ():
            if commit.id in (self._right.get(branch), self._base.commit):
                break
            since = commit.id
        return since
