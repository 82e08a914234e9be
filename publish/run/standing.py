"""Where a release stands on its Hub: its steps, ``main``, and what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from publish.card.render import render_step
from publish.errors import HubError
from publish.hub import manifest
from publish.hub.branchfile import BranchFile, differences
from publish.hub.checkpoints import CheckpointRecord, Checkpoints, Remarks
from publish.hub.errata import Erratum
from publish.hub.ledger import Ledger, LedgerEntry
from publish.hub.look import READERS, look, read_listed, read_listing
from publish.hub.manifest import GateRecord, Manifest
from publish.hub.status import Expected, StepStatus
from publish.run.cardfacts import README, run_facts, step_facts
from publish.run.expected import expectations, wording_digest
from publish.run.job import Job
from publish.run.plots import PlotsThere
from publish.run.suite import main_files
from publish.run.workplace import default_folder
from publish.wire.client import Client
from publish.wire.download import fetch_text_if_there
from publish.wire.failures import Refused
from publish.wire.repo import TreeEntry, list_branches, list_tree

MAIN = "main"


def branches_of(client: Client, repo: str) -> dict[str, str]:
    """Branch -> tip, in one request; empty where there is no such repo, or none that this token may see.

    Raises:
        HubError: no connection, an invalid token.
    """
    try:
        return list_branches(client, repo)
    except Refused as error:
        if error.status != 404:
            raise
        return {}


@dataclass(frozen=True)
class Standing:
    """The steps of the whole schedule at the ``branches`` that the Hub listed, compared with the job."""

    job: Job
    client: Client
    ledger: Ledger
    branches: Mapping[str, str]
    expected: Mapping[int, Expected]
    steps: Mapping[int, StepStatus]
    known: Mapping[int, CheckpointRecord]
    traced: tuple[GateRecord, ...] = ()
    mended: tuple[Erratum, ...] | None = None

    @property
    def remarks(self) -> Remarks:
        """What ``main`` shall say of the suite; ``mended`` are the errata of this process's own repair."""
        listed = self.listing.errata if self.listing else ()
        return Remarks(self.lineage, listed if self.mended is None else self.mended)

    @cached_property
    def lineage(self) -> tuple[GateRecord, ...]:
        """What the steps show together: as this process found it, else as ``main`` lists it, of the same weights."""
        if self.traced:
            return self.traced
        return self.listing.lineage if self.listing and self.listing.of_weights(self.records) else ()

    @cached_property
    def listing(self) -> Checkpoints | None:
        """``checkpoints.json`` of ``main``."""
        return read_listing(self.client, self.job.release.target, self.branches.get(MAIN))

    @cached_property
    def main_tree(self) -> tuple[TreeEntry, ...]:
        """The files of ``main``."""
        tip = self.branches.get(MAIN)
        return list_tree(self.client, self.job.release.target, tip) if tip else ()

    @cached_property
    def main_files(self) -> tuple[BranchFile, ...]:
        """What ``main`` shall hold besides the final step's files."""
        there = PlotsThere()
        if self.listing is not None and self.mended is None:  # a repair may begin from an emptied branch
            there = PlotsThere(self.listing.plots, {entry.path: entry for entry in self.main_tree})
        return main_files(self.job, self.records, self.remarks, there)

    @property
    def commits(self) -> dict[int, str]:
        """Step -> tip, of those that are published; cards may be out of date."""
        return {step: str(each.commit) for step, each in self.steps.items() if _there(each)}

    def todo(self) -> dict[int, StepStatus]:
        """The chosen steps whose weights have to be read."""
        return {step: self.steps[step] for step in self.job.chosen if not _there(self.steps[step])}

    def stale_cards(self) -> tuple[int, ...]:
        """The chosen steps that are right but for their card."""
        return tuple(step for step in self.job.chosen if self.steps[step].only_card)

    @cached_property
    def records(self) -> dict[int, CheckpointRecord]:
        """What is recorded at the tip of every published step: read from the Hub where that was not done yet."""
        repo = self.job.release.target
        found = {step: self.known.get(step) or self.steps[step].record for step in self.commits}
        absent = {f"step{step}": self.commits[step] for step, record in found.items() if record is None}
        listed = read_listed(self.client, repo, self.branches.get(MAIN), absent)
        read = read_records(self.client, repo, {b: tip for b, tip in absent.items() if b not in listed})
        read |= {branch: each.record for branch, each in listed.items() if each.record is not None}
        return {step: record or read[f"step{step}"] for step, record in found.items()}

    @property
    def finished(self) -> bool:
        """Whether nothing is to be written, neither to a chosen step nor to ``main``."""
        if self.todo() or self.stale_cards():
            return False
        return len(self.commits) < len(self.job.steps) or self.main_is_right()

    def main_is_right(self) -> bool:
        """Whether ``main`` holds the final step's files, the suite's card and the list of all steps at their tips.

        No request where the ledger knows its tip; else its files are compared with the final step's.
        """
        repo, tip = self.job.release.target, self.branches.get(MAIN)
        if tip is None:
            return False
        proof = main_proof(self.job, self.commits)
        entry = self.ledger.find(repo, MAIN, tip)
        if entry is not None and entry.proof == proof:
            return True
        if self._main_differs():
            return False
        self.ledger.add(LedgerEntry(repo, MAIN, tip, proof))
        return True

    def _main_differs(self) -> tuple[str, ...]:
        final = list_tree(self.client, self.job.release.target, self.commits[self.job.steps[-1]])
        wanted = {each.path: BranchFile.kept(each) for each in final if each.path != README}
        wanted |= {each.path: each for each in self.main_files}
        return differences(self.main_tree, wanted)


def _there(status: StepStatus) -> bool:
    return status.state == "published" or status.only_card


def stand(
    job: Job,
    client: Client,
    ledger: Ledger,
    branches: Mapping[str, str],
    steps: Sequence[int],
    known: Mapping[int, CheckpointRecord] = MappingProxyType({}),
) -> Standing:
    """Where ``steps`` of the job stand. A release that is finished and in the ledger costs no request.

    ``known``: records of steps that this process published itself.

    Raises:
        HubError: no access, no connection. StorageError: the ledger cannot be written. SourceError: a model that the
            release compares with is neither a folder nor a repo.
    """
    expected = expectations(job, steps)
    run = run_facts(job)

    def card_of(record: Manifest) -> str:
        text = render_step(step_facts(job.release, run, job.steps, record, hub=job.hub), job.templates)
        return hashlib.sha256(text.encode()).hexdigest()

    repo = job.release.target
    found = look(client, repo, tuple(expected.values()), ledger=ledger, branches=branches, card_of=card_of)
    return Standing(job, client, ledger, branches, expected, {each.step: each for each in found}, known)


def look_at(job: Job, client: Client, work_dir: Path | None) -> tuple[StepStatus, ...]:
    """The state of the job's chosen steps.

    Raises:
        HubError: no access, no connection.
    """
    repo = job.release.target
    ledger = Ledger(work_dir or default_folder(client.endpoint.url, repo))
    return tuple(stand(job, client, ledger, branches_of(client, repo), job.chosen).steps.values())


def main_proof(job: Job, commits: Mapping[int, str]) -> str:
    """A digest of all that ``main`` is made from."""
    document = [wording_digest(job), job.plan.digest, sorted(commits.items())]
    return hashlib.sha256(json.dumps(document, default=str).encode()).hexdigest()


def read_records(client: Client, repo: str, tips: Mapping[str, str]) -> dict[str, CheckpointRecord]:
    """What the manifests at these tips say, by branch; a request for each."""

    def read(commit: str) -> CheckpointRecord:
        content = fetch_text_if_there(client, repo, commit, manifest.NAME)
        if content is None:
            raise HubError(f"there is no {manifest.NAME}", f"{repo}@{commit}", "publish the step again")
        return CheckpointRecord.of(Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}"), commit)

    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        return dict(zip(tips, pool.map(read, tips.values()), strict=True))
