"""Where a release stands on its Hub: its steps, ``main``, and what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from publish import __version__
from publish.cards.render import render_step, templates_folder
from publish.convert.folder import small_files
from publish.errors import HubError
from publish.hub.branch_files import GITATTRIBUTES, BranchFile, differences
from publish.hub.client import Client
from publish.hub.downloads import fetch_if_exists
from publish.hub.failures import Refused
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord, Checkpoints, Erratum, Remarks
from publish.records.gates import Gate
from publish.records.manifest import Manifest
from publish.release.card_facts import README, run_facts, step_facts
from publish.release.comparisons import compared_with
from publish.release.job import Job
from publish.release.ledger import Ledger, LedgerEntry
from publish.release.main_branch import main_files
from publish.release.main_plots import PlotsThere
from publish.release.work_dir import default_folder
from publish.sources.files import fingerprint
from publish.text import some

# Whether a step is published as it should be, from what its branch says of itself; pure.


State = Literal["published", "stale", "missing", "foreign"]
CardOf = Callable[[Manifest], str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step must be made of. A digest that is None is not compared.

    ``files`` are the sha256 of files that all steps share: config and tokenizer. ``wording`` is a digest of what its
    card is made from besides: it only decides whether a ledger's proof still holds. ``comparisons`` are the locations
    of the models that it shall be compared with, as its manifest names them; None: any.
    """

    step: int
    branch: str
    source_commit: str | None
    plan: str | None
    files: tuple[tuple[str, str], ...] = ()
    wording: str | None = None
    comparisons: tuple[str, ...] | None = None

    @property
    def proof(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a branch's tip says of itself, and how its files differ from that.

    ``reason`` tells why it says nothing, and then there is no ``record``.
    """

    commit: str
    record: CheckpointRecord | None = None
    differences: tuple[str, ...] = ()
    empty: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step's state, why, the tip it was found at, and what that says of itself where it was read.

    ``only_card``: it is stale by its card and by nothing else.
    """

    step: int
    branch: str
    state: State
    reason: str
    commit: str | None = None
    record: CheckpointRecord | None = None
    only_card: bool = False


def judge(expected: Expected, seen: Seen | None, card_of: CardOf | None = None) -> StepStatus:
    """The state of one step; pure. ``card_of`` gives the sha256 of the card that a manifest should have."""

    def status(state: State, reason: str, only_card: bool = False) -> StepStatus:
        commit, record = (seen.commit, seen.record) if seen else (None, None)
        return StepStatus(expected.step, expected.branch, state, reason, commit, record, only_card)

    if seen is None:
        return status("missing", "there is no such branch")
    if seen.empty:
        return status("missing", "the branch is there, without a commit of its own")
    if seen.record is None:
        return status("foreign", seen.reason)
    if seen.record.step != expected.step:
        return status("foreign", f"its {manifest.NAME} says step {seen.record.step}")
    stale = _stale(expected, seen.record)
    if seen.differences:
        stale.append(f"files: {some(seen.differences, 5, '; ')}")
    by_card = _stale_card(seen.record, card_of) if card_of is not None and not stale else None
    if stale or by_card:
        return status("stale", "; ".join(stale) or str(by_card), only_card=not stale)
    return status("published", "as recorded at its tip")


def _stale(expected: Expected, record: CheckpointRecord) -> list[str]:
    published = {file.path: file.sha256 for file in record.published.files} if record.published else {}
    compared = (
        ("source", expected.source_commit, record.source_commit),
        ("plan", expected.plan, record.plan),
        *((path, digest, published.get(path)) for path, digest in expected.files),
    )
    changed = [
        f"{name} {short(is_now)}, published from {short(was)}"
        for name, is_now, was in compared
        if is_now is not None and is_now != was
    ]
    return [*changed, *_other_comparisons(expected, record)]


def _other_comparisons(expected: Expected, record: CheckpointRecord) -> list[str]:
    """What the release asks to be compared and the step does not show, and the other way round; in any order."""
    if expected.comparisons is None or record.published is None:
        return []
    wanted = Counter(expected.comparisons)
    shown = Counter(each.location for each in record.published.comparisons)
    return [
        *(f"not compared with {each}" for each in sorted((wanted - shown).elements())),
        *(f"compared with {each}, which the release does not ask for" for each in sorted((shown - wanted).elements())),
    ]


def _stale_card(record: CheckpointRecord, card_of: CardOf) -> str | None:
    card = card_of(record.published) if record.published else None
    return None if card == record.card else f"card {short(card)}, published {short(record.card)}"


def short(digest: str | None) -> str:
    """The first twelve characters of a digest."""
    return digest[:12] if digest else "none"


# What is published of a release: refs, and as few reads as the answer takes.


READERS = 8


def look(
    client: Client,
    repo: str,
    expected: Sequence[Expected],
    *,
    ledger: Ledger | None = None,
    branches: Mapping[str, str] | None = None,
    card_of: CardOf | None = None,
) -> tuple[StepStatus, ...]:
    """The state of every expected step, in their order.

    `branches`: refs that the caller has just listed. `card_of`: as for :func:`judge`. What is found to be published
    goes into the ledger.

    Raises:
        HubError: no such repo, no access, no connection.
        StorageError: the ledger cannot be written.
    """
    tips = list_branches(client, repo) if branches is None else branches
    known = {each.step for each in expected if _proven(ledger, repo, each, tips)}
    unknown = {each.branch: tips[each.branch] for each in expected if each.step not in known and each.branch in tips}
    seen = read_listed(client, repo, tips.get("main"), unknown)
    seen |= _read_branches(client, repo, {b: tip for b, tip in unknown.items() if b not in seen})
    found = []
    for each in expected:
        if each.step in known:
            found.append(StepStatus(each.step, each.branch, "published", "as recorded at its tip", tips[each.branch]))
            continue
        found.append(judge(each, seen.get(each.branch), card_of))
        if ledger is not None and found[-1].state == "published":
            ledger.add(LedgerEntry(repo, each.branch, tips[each.branch], each.proof))
    return tuple(found)


def _proven(ledger: Ledger | None, repo: str, expected: Expected, tips: Mapping[str, str]) -> bool:
    if ledger is None or expected.branch not in tips:
        return False
    entry = ledger.find(repo, expected.branch, tips[expected.branch])
    return entry is not None and entry.proof == expected.proof


def read_listing(client: Client, repo: str, main: str | None) -> Checkpoints | None:
    """``checkpoints.json`` at the commit `main`, in one request; None where there is none, or somebody else's.

    Raises:
        HubError: no access, no connection.
    """
    content = fetch_if_exists(client, repo, main, checkpoints.NAME) if main else None
    if content is None:
        return None
    try:
        return Checkpoints.from_bytes(content, f"{repo}@{main}/{checkpoints.NAME}")
    except HubError:
        return None  # every branch is asked instead


def read_listed(client: Client, repo: str, main: str | None, tips: Mapping[str, str]) -> dict[str, Seen]:
    """What ``checkpoints.json`` at the commit `main` says of the branches at these `tips`; at most one request.

    Raises:
        HubError: no access, no connection.
    """
    listing = read_listing(client, repo, main) if tips else None
    listed = listing.by_branch() if listing else {}
    found = {branch: listed[branch] for branch in tips if branch in listed}
    return {
        branch: Seen(each.commit, each)
        for branch, each in found.items()
        if each.commit == tips[branch] and each.published is not None
    }


def _read_branches(client: Client, repo: str, tips: Mapping[str, str]) -> dict[str, Seen]:
    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        read = pool.map(lambda tip: _read_branch(client, repo, *tip), tips.items())
        return dict(zip(tips, read, strict=True))


def _read_branch(client: Client, repo: str, branch: str, commit: str) -> Seen:
    entries = list_tree(client, repo, commit)
    paths = [entry.path for entry in entries if entry.path != GITATTRIBUTES]
    if not paths:
        return Seen(commit, empty=True)
    content = fetch_if_exists(client, repo, commit, manifest.NAME) if manifest.NAME in paths else None
    if content is None:
        return Seen(commit, reason=f"there is no {manifest.NAME} among its {len(paths)} files")
    try:
        record = Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}")
    except HubError as error:
        return Seen(commit, reason=f"its {manifest.NAME} cannot be read: {error.what}")
    if record.branch != branch:
        return Seen(commit, reason=f"its {manifest.NAME} is that of branch {record.branch}")
    return Seen(commit, CheckpointRecord.of(record, commit), _differences(record, entries))


def _differences(record: Manifest, entries: Iterable[TreeEntry]) -> tuple[str, ...]:
    """How a branch's files differ from those that its manifest names: paths, sizes, and digests of LFS files."""
    there = {entry.path: entry for entry in entries if entry.path not in (GITATTRIBUTES, manifest.NAME)}
    named = {file.path: file for file in record.files}
    found = [f"{path} is surplus" for path in there if path not in named]
    for path, file in named.items():
        entry = there.get(path)
        if entry is None:
            found.append(f"{path} is missing")
        elif entry.size != file.size:
            found.append(f"{path} has {entry.size} bytes, not {file.size}")
        elif entry.lfs_sha256 not in (None, file.sha256):
            found.append(f"{path} has sha256 {short(entry.lfs_sha256)}, not {short(file.sha256)}")
    return tuple(found)


# What every step of a release must be made of, as far as that is known before a weight is read.


NOT_WORDING = ("source", "schedule", "tokenizer", "where", "base", "commits_per_hour")


def expectations(job: Job, steps: Iterable[int]) -> dict[int, Expected]:
    """Step -> what its branch must be made of; the files of a folder source are looked at, a Hub is not asked.

    Raises:
        SourceError: a checkpoint cannot be read, or a model to compare with is neither a folder nor a repo.
    """
    files, wording = shared_files(job), wording_digest(job)
    return {
        step: Expected(
            step=step,
            branch=f"step{step}",
            source_commit=source_commit(job, step),
            plan=job.plan.digest,
            files=files,
            wording=wording,
            comparisons=compared_with(job.release, step),
        )
        for step in steps
    }


def source_commit(job: Job, step: int) -> str | None:
    """What pins a step's source: its commit on a Hub, a fingerprint of its files' indices in a folder."""
    source = job.run.steps[step]
    if source.commit is not None:
        return source.commit
    files = job.run.open(source)
    try:
        return fingerprint(files)
    finally:
        files.close()


def shared_files(job: Job) -> tuple[tuple[str, str], ...]:
    """Path and sha256 of the files that every step has alike; none where the tokenizer was not found."""
    if job.tokenizer is None:
        return ()
    files = small_files(job.plan, job.tokenizer)
    return tuple((name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items()))


def wording_digest(job: Job) -> str:
    """A digest of all that cards are made from besides a step's manifest: words, templates, this version."""
    words = {name: value for name, value in asdict(job.release).items() if name not in NOT_WORDING}
    folders = [templates_folder(), *([job.templates] if job.templates else [])]
    templates = [(path.name, path.read_text("utf-8")) for folder in folders for path in sorted(folder.glob("*.j2"))]
    document = [__version__, words, job.steps, job.hub, templates]
    return hashlib.sha256(json.dumps(document, default=str).encode()).hexdigest()


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
    traced: tuple[Gate, ...] = ()
    mended: tuple[Erratum, ...] | None = None

    @property
    def remarks(self) -> Remarks:
        """What ``main`` shall say of the suite; ``mended`` are the errata of this process's own repair."""
        listed = self.listing.errata if self.listing else ()
        return Remarks(self.lineage, listed if self.mended is None else self.mended)

    @cached_property
    def lineage(self) -> tuple[Gate, ...]:
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
        content = fetch_if_exists(client, repo, commit, manifest.NAME)
        if content is None:
            raise HubError(f"there is no {manifest.NAME}", f"{repo}@{commit}", "publish the step again")
        return CheckpointRecord.of(Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}"), commit)

    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        return dict(zip(tips, pool.map(read, tips.values()), strict=True))
