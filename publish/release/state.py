"""What the Hub has of a release: the state of every step's branch, and the tips that it was read at.

It is asked each time. Nothing on this machine says that a step is published.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from publish.cards.facts import StepFacts
from publish.cards.render import render_step
from publish.errors import HubError
from publish.hub.branch_files import GITATTRIBUTES
from publish.hub.client import Client
from publish.hub.downloads import fetch_if_exists
from publish.hub.failures import Refused
from publish.hub.reads import TreeEntry, list_branches, list_tree
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.manifest import Manifest
from publish.release.comparisons import compared_with
from publish.release.facts import run_facts
from publish.release.job import Job, StepTask
from publish.release.outcome import Failure
from publish.schedule import branch_of
from publish.text import some

MAIN = "main"
READERS = 8  # requests in flight while branches are read
State = Literal["published", "stale", "missing", "foreign"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step's branch must be made of. A digest that is None is not compared.

    ``files`` are path and sha256 of the files that all steps share: config and tokenizer. ``comparisons`` are the
    locations of the models that the step is to be compared with; None: any.
    """

    step: int
    branch: str
    source_commit: str | None
    plan: str | None
    files: tuple[tuple[str, str], ...] = ()
    comparisons: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BranchTip:
    """What a branch's tip says about itself in its manifest, and how its files differ from that.

    Without a ``record``, ``reason`` says why there is none.
    """

    commit: str
    record: CheckpointRecord | None = None
    differences: tuple[str, ...] = ()
    empty: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BranchState:
    """A step's state and the reason, with the tip that was read. ``only_card``: nothing but the card is stale."""

    step: int
    branch: str
    state: State
    reason: str
    commit: str | None = None
    record: CheckpointRecord | None = None
    only_card: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether the branch holds the right weights; its card may be stale."""
        return self.state == "published" or self.only_card


@dataclass(frozen=True)
class ReleaseState:
    """The steps of a release at the ``tips`` that the Hub listed. ``listing`` is ``main``'s ``checkpoints.json``."""

    job: Job
    client: Client
    tips: Mapping[str, str]
    listing: Checkpoints | None
    expected: Mapping[int, Expected]
    steps: Mapping[int, BranchState]

    @property
    def address(self) -> str:
        return f"{self.client.endpoint.url}/{self.job.model.repo}"

    @cached_property
    def main_tree(self) -> tuple[TreeEntry, ...]:
        """The files of ``main``: one request, when they are first needed."""
        return list_tree(self.client, self.job.model.repo, self.tips[MAIN]) if MAIN in self.tips else ()

    @property
    def records(self) -> dict[int, CheckpointRecord]:
        """Step -> what its tip records, of the steps whose weights are published."""
        return {step: state.record for step, state in self.steps.items() if state.has_weights and state.record}

    def to_make(self) -> tuple[int, ...]:
        """The chosen steps that have to be made from their checkpoints."""
        return tuple(
            step for step in self.job.chosen if not self.steps[step].has_weights and self.steps[step].state != "foreign"
        )

    def tasks(self, steps: Iterable[int]) -> tuple[StepTask, ...]:
        """What an executor needs to make ``steps``: their checkpoints, pinned to what they were when they were read."""
        return tuple(
            StepTask(self.job, replace(self.job.run.steps[step], commit=self.job.pins[step])) for step in steps
        )

    def stale_cards(self) -> tuple[int, ...]:
        """The chosen steps of which only the card is stale."""
        return tuple(step for step in self.job.chosen if self.steps[step].only_card)

    def foreign(self) -> tuple[Failure, ...]:
        """A failure for each chosen step whose branch holds what this tool did not put there."""
        return tuple(
            Failure.of(
                state.branch,
                state.step,
                HubError(
                    f"branch {state.branch} holds files that this tool did not publish: {state.reason}",
                    f"{self.job.model.repo}@{state.branch}",
                    "look at the branch; delete it to have it published again",
                ),
            )
            for state in (self.steps[step] for step in self.job.chosen)
            if state.state == "foreign"
        )


def read_state(
    job: Job,
    client: Client,
    *,
    steps: Sequence[int] | None = None,
    known: Mapping[str, CheckpointRecord] = MappingProxyType({}),
) -> ReleaseState:
    """Ask the Hub for the state of ``steps`` (default: the whole schedule).

    Two requests where ``checkpoints.json`` lists every tip; else two small reads for each branch that it does not
    list. ``known`` are records of branches that this process committed and read back: they are not read again.

    Raises:
        HubError: no access, no connection. SourceError: a checkpoint cannot be read, or a model to compare with is
            neither a folder nor a repo.
    """
    expected = {step: _expected(job, step) for step in (job.steps if steps is None else steps)}
    tips = _branches(client, job.model.repo)
    listing = read_listing(client, job.model.repo, tips.get(MAIN))
    wanted = {step.branch: tips[step.branch] for step in expected.values() if step.branch in tips}
    read: dict[str, BranchTip] = {}
    for branch, record in {**(listing.by_branch() if listing else {}), **known}.items():
        if record.commit == wanted.get(branch):
            read[branch] = BranchTip(record.commit, record)
    unread = {branch: commit for branch, commit in wanted.items() if branch not in read}
    if unread:
        with ThreadPoolExecutor(min(READERS, len(unread))) as pool:
            tips_read = pool.map(lambda tip: _read_tip(client, job.model.repo, *tip), unread.items())
            read |= dict(zip(unread, tips_read, strict=True))
    run = run_facts(job)

    def card_of(record: Manifest) -> str:
        text = render_step(StepFacts(job.release, run, job.steps, record, job.hub), job.templates)
        return hashlib.sha256(text.encode()).hexdigest()

    states = {}
    for step, wanted_step in expected.items():
        state = judge(wanted_step, read.get(wanted_step.branch))
        if state.state == "published" and wanted_step.branch not in known:
            state = judge_card(state, card_of)
        states[step] = state
    return ReleaseState(job, client, tips, listing, expected, states)


def judge(expected: Expected, tip: BranchTip | None) -> BranchState:
    """The state of one step, its card aside."""

    def state(word: State, reason: str) -> BranchState:
        commit, record = (tip.commit, tip.record) if tip else (None, None)
        return BranchState(expected.step, expected.branch, word, reason, commit, record)

    if tip is None:
        return state("missing", "the branch does not exist")
    if tip.empty:
        return state("missing", "the branch has no commit yet")
    if tip.record is None:
        return state("foreign", tip.reason)
    if tip.record.step != expected.step:
        return state("foreign", f"its {manifest.NAME} is for step {tip.record.step}")
    changed = _changes(expected, tip.record)
    if tip.differences:
        changed.append(f"files: {some(tip.differences, 5, '; ')}")
    return state("stale", "; ".join(changed)) if changed else state("published", "as recorded at its tip")


def judge_card(state: BranchState, card_of: Callable[[Manifest], str]) -> BranchState:
    """The state with its card compared: ``card_of`` renders what a manifest's card should be, and gives its sha256."""
    record = state.record
    assert record is not None
    card, published = card_of(record.manifest), record.manifest.card
    if card == published:
        return state
    reason = f"card {_short(card)}, published {_short(published)}"
    return replace(state, state="stale", reason=reason, only_card=True)


def _changes(expected: Expected, record: CheckpointRecord) -> list[str]:
    """How what a branch was made from differs from what it would be made from now."""
    published = {file.path: file.sha256 for file in record.manifest.files}
    compared = (
        ("source", expected.source_commit, record.manifest.source.commit),
        ("plan", expected.plan, record.manifest.plan),
        *((path, digest, published.get(path)) for path, digest in expected.files),
    )
    changes = [
        f"{name} {_short(now)}, published from {_short(then)}"
        for name, now, then in compared
        if now is not None and now != then
    ]
    if expected.comparisons is not None:
        wanted = Counter(expected.comparisons)
        shown = Counter(comparison.location for comparison in record.manifest.comparisons)
        changes += [f"not compared with {location}" for location in sorted((wanted - shown).elements())]
        changes += [
            f"compared with {location}, which the release does not ask for"
            for location in sorted((shown - wanted).elements())
        ]
    return changes


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _expected(job: Job, step: int) -> Expected:
    return Expected(
        step=step,
        branch=branch_of(step),
        source_commit=job.pins[step],
        plan=job.plan.digest,
        files=job.shared_files,
        comparisons=compared_with(job.release, step),
    )


def _branches(client: Client, repo: str) -> dict[str, str]:
    """Branch -> tip; empty where the repo does not exist or this token may not see it."""
    try:
        return list_branches(client, repo)
    except Refused as error:
        if error.status != 404:
            raise
        return {}


def read_listing(client: Client, repo: str, main: str | None) -> Checkpoints | None:
    """``checkpoints.json`` at the commit ``main``, in one request; None where there is none that can be read.

    Raises:
        HubError: no access, no connection.
    """
    content = fetch_if_exists(client, repo, main, checkpoints.NAME) if main else None
    if content is None:
        return None
    try:
        return Checkpoints.from_bytes(content, f"{repo}@{main}/{checkpoints.NAME}")
    except HubError:
        return None  # written by somebody else: every branch is read instead


def read_manifest(client: Client, repo: str, commit: str) -> Manifest | None:
    """The whole ``publish.json`` at a commit, in one request; None where there is none."""
    content = fetch_if_exists(client, repo, commit, manifest.NAME)
    return None if content is None else Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}")


def _read_tip(client: Client, repo: str, branch: str, commit: str) -> BranchTip:
    entries = list_tree(client, repo, commit)
    paths = [entry.path for entry in entries if entry.path != GITATTRIBUTES]
    if not paths:
        return BranchTip(commit, empty=True)
    content = fetch_if_exists(client, repo, commit, manifest.NAME) if manifest.NAME in paths else None
    if content is None:
        return BranchTip(commit, reason=f"none of its {len(paths)} files is {manifest.NAME}")
    try:
        record = Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}")
    except HubError as error:
        return BranchTip(commit, reason=f"its {manifest.NAME} cannot be read: {error.what}")
    if record.branch != branch:
        return BranchTip(commit, reason=f"its {manifest.NAME} is for branch {record.branch}")
    return BranchTip(commit, CheckpointRecord.of(record, commit), _differences(record, entries))


def _differences(record: Manifest, entries: Iterable[TreeEntry]) -> tuple[str, ...]:
    """How a branch's files differ from those that its manifest names: paths, sizes, and digests of LFS files."""
    listed = {entry.path: entry for entry in entries if entry.path not in (GITATTRIBUTES, manifest.NAME)}
    named = {file.path: file for file in record.files}
    found = [f"{path} is not in the manifest" for path in listed if path not in named]
    for path, file in named.items():
        entry = listed.get(path)
        if entry is None:
            found.append(f"{path} is missing")
        elif entry.size != file.size:
            found.append(f"{path} has {entry.size} bytes instead of {file.size}")
        elif entry.lfs_sha256 not in (None, file.sha256):
            found.append(f"{path} has sha256 {_short(entry.lfs_sha256)} instead of {_short(file.sha256)}")
    return tuple(found)
