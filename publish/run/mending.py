"""A repair while it runs: where each branch starts from, and what to record of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from publish.hub.branchfile import GITATTRIBUTES, BranchFile, by_path, differences
from publish.hub.checkpoints import Checkpoints
from publish.hub.errata import Erratum
from publish.hub.manifest import WEIGHTS, Manifest
from publish.hub.transaction import README, publish_branch
from publish.run.repair import MAIN, Repair
from publish.run.target import Target
from publish.wire.download import fetch_file
from publish.wire.repo import latest_commits, list_tree

SHARED = frozenset({"duplicate-weights", "mixed-shards"})  # kinds that name the right one with the wrong ones
Errata = dict[int | None, tuple[Erratum, ...]]  # None: of `main`


class Mending:
    """Shared by the threads of a release. ``listed``: ``checkpoints.json`` before the repair."""

    def __init__(self, repair: Repair, target: Target, listed: Checkpoints | None) -> None:
        self.repair = repair
        self._target = target
        self._tips: Mapping[str, str] = repair.tips or target.branches
        self._right = {record.branch: record.commit for record in (listed.checkpoints if listed else ())}
        self._made: dict[int | None, Erratum] = {}
        self.emptied: list[str] = []  # branches that took a commit more

    def begin(self, branch: str, files: Sequence[BranchFile]) -> str | None:
        """The tip to publish ``files`` on: what the audit saw, so that a branch that moved since is not overwritten.

        One that holds them already, or nothing, after an interruption, is gone on from. A branch that keeps its card
        in LFS is emptied first, by a commit of its own: only so the card leaves LFS.

        Raises:
            HubError: the branch moved, the Hub refuses.
        """
        client, base, current = self._target.client, self._target.base, self._target.branches.get(branch)
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

    def is_right(self, step: int, recorded: Manifest | None) -> bool:
        """Whether this is the step that others hold the weights of: its own, by the manifest on its branch.

        Of equal branches an audit cannot tell which is right. ``recorded``: the manifest, proven to be of this source.

        Raises:
            HubError: the branch cannot be listed.
        """
        tip = self._target.branches.get(f"step{step}")
        if recorded is None or tip is None or not {each.kind for each in self.repair.steps[step]} <= SHARED:
            return False
        there = {entry.path: entry.lfs_sha256 for entry in list_tree(self._target.client, self._target.base.repo, tip)}
        return all(there.get(file.path) == file.sha256 for file in recorded.files if file.path.endswith(WEIGHTS))

    def ended(self, step: int, commit: str) -> None:
        """Note that the branch of ``step`` is at ``commit`` now; one that is where the audit saw it was right."""
        if commit != self._tips.get(f"step{step}"):
            self._made[step] = self._erratum(step, commit)

    def errata(self, listed: Checkpoints | None) -> Errata:
        """All errata, those that ``listed`` has already among them, each once."""
        if self.repair.main:
            self._made[None] = self._erratum(None, "")
        errata = errata_of(listed)
        for step, new in self._made.items():
            old = errata.get(step, ())
            same = [each for each in old if (each.detail, each.replaced_by) == (new.detail, new.replaced_by)]
            errata[step] = old if same else (*old, new)
        return errata

    def _erratum(self, step: int | None, commit: str) -> Erratum:
        found = self.repair.main if step is None else self.repair.steps[step]
        kinds = tuple(dict.fromkeys(each.kind for each in found))
        detail = "; ".join(dict.fromkeys(each.detail for each in found))
        return Erratum(kinds, detail, self._since(MAIN if step is None else f"step{step}"), commit)

    def _since(self, branch: str) -> str:
        """The first commit after the one that was right, as far back as a page of history goes; empty: missing."""
        since = before = self._tips.get(branch, "")
        base = self._target.base
        for commit in latest_commits(self._target.client, base.repo, before) if before else ():
            if commit.id in (self._right.get(branch), base.commit):
                break
            since = commit.id
        return since


def errata_of(listed: Checkpoints | None) -> Errata:
    """The errata that ``checkpoints.json`` lists."""
    if listed is None:
        return {}
    return {record.step: record.errata for record in listed.checkpoints} | {None: listed.errata}
