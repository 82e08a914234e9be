"""Which steps are published as they should be: refs, and as few reads as the answer takes.

A finished release costs two requests: refs, and `main`'s ``checkpoints.json``, which is believed for a branch
only where the commit that it names is the branch's tip. Where neither it nor the ledger knows a tip, that
branch's own ``publish.json`` is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from publish.errors import HubError
from publish.hub import checkpoints, manifest
from publish.hub.branchfile import GITATTRIBUTES
from publish.hub.ledger import Ledger, LedgerEntry
from publish.hub.repository import Base
from publish.wire.client import Client
from publish.wire.download import fetch_text_if_there
from publish.wire.repo import list_branches, list_tree

State = Literal["published", "stale", "missing", "foreign"]
READERS = 8


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step must be made of. A digest that is None is not compared."""

    step: int
    branch: str
    source_commit: str | None
    plan: str | None
    card: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a branch's tip says of itself. `reason` tells why it says nothing, and then the rest is empty."""

    commit: str
    step: int | None = None
    source_commit: str | None = None
    plan: str | None = None
    card: str | None = None
    manifest: str | None = None
    empty: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step's state, the tip it was found at, and why."""

    step: int
    branch: str
    state: State
    reason: str
    commit: str | None = None


def judge(expected: Expected, seen: Seen | None) -> StepStatus:
    """The state of one step; pure."""

    def status(state: State, reason: str) -> StepStatus:
        return StepStatus(expected.step, expected.branch, state, reason, seen.commit if seen else None)

    if seen is None:
        return status("missing", "there is no such branch")
    if seen.empty:
        return status("missing", "the branch is there, without a commit of its own")
    if seen.manifest is None:
        return status("foreign", seen.reason)
    if seen.step is not None and seen.step != expected.step:
        return status("foreign", f"its {manifest.NAME} says step {seen.step}")
    stale = [
        f"{name} {_short(is_now)}, published from {_short(was)}"
        for name, is_now, was in (
            ("source", expected.source_commit, seen.source_commit),
            ("plan", expected.plan, seen.plan),
            ("card", expected.card, seen.card),
        )
        if is_now is not None and is_now != was
    ]
    if stale:
        return status("stale", "; ".join(stale))
    return status("published", "as recorded at its tip")


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def look(
    client: Client,
    repo: str,
    expected: Sequence[Expected],
    *,
    ledger: Ledger | None = None,
    branches: Mapping[str, str] | None = None,
    base: Base | None = None,
) -> tuple[StepStatus, ...]:
    """The state of every expected step, in their order.

    `branches`: refs that the caller has just listed. `base`: the first commit, if known; a branch that is
    still there is missing without a further question. What is read from branches goes into the ledger.

    Raises:
        HubError: no such repo, no access, no connection.
        StorageError: the ledger cannot be written.
    """
    tips = list_branches(client, repo) if branches is None else branches
    seen: dict[str, Seen] = {}
    unknown = []
    for branch in (each.branch for each in expected if each.branch in tips):
        commit = tips[branch]
        entry = ledger.find(repo, branch, commit) if ledger else None
        if base is not None and commit == base.commit:
            seen[branch] = Seen(commit, empty=True)
        elif entry is not None:
            seen[branch] = _of_ledger(entry)
        else:
            unknown.append(branch)
    if unknown and "main" in tips:
        listed = _read_checkpoints(client, repo, tips["main"])
        seen |= {branch: listed[branch] for branch in unknown if _names_tip(listed, branch, tips)}
    seen |= _read_branches(client, repo, [(b, tips[b]) for b in unknown if b not in seen], ledger)
    return tuple(judge(each, seen.get(each.branch)) for each in expected)


def _names_tip(listed: Mapping[str, Seen], branch: str, tips: Mapping[str, str]) -> bool:
    return branch in listed and listed[branch].commit == tips[branch]


def _of_ledger(entry: LedgerEntry) -> Seen:
    return Seen(entry.commit, None, entry.source_commit, entry.plan, entry.card, entry.manifest)


def _read_checkpoints(client: Client, repo: str, commit: str) -> dict[str, Seen]:
    content = fetch_text_if_there(client, repo, commit, checkpoints.NAME)
    if content is None:
        return {}
    try:
        record = checkpoints.Checkpoints.from_bytes(content, f"{repo}@{commit}/{checkpoints.NAME}")
    except HubError:
        return {}  # somebody's own file of that name: every branch is asked instead
    return {
        branch: Seen(r.commit, r.step, r.source_commit, r.plan, r.card, r.manifest)
        for branch, r in record.by_branch().items()
    }


def _read_branches(
    client: Client, repo: str, tips: Iterable[tuple[str, str]], ledger: Ledger | None
) -> dict[str, Seen]:
    tips = list(tips)
    if not tips:
        return {}
    with ThreadPoolExecutor(min(READERS, len(tips))) as pool:
        found = dict(
            zip(
                (b for b, _ in tips),
                pool.map(lambda tip: _read_branch(client, repo, *tip), tips),
                strict=True,
            )
        )
    for branch, seen in found.items():
        if ledger is not None and seen.manifest is not None and seen.plan is not None:
            ledger.add(LedgerEntry(repo, branch, seen.commit, seen.source_commit, seen.plan, seen.card, seen.manifest))
    return found


def _read_branch(client: Client, repo: str, branch: str, commit: str) -> Seen:
    where = f"{repo}@{commit}/{manifest.NAME}"
    content = fetch_text_if_there(client, repo, commit, manifest.NAME)
    if content is None:
        paths = [entry.path for entry in list_tree(client, repo, commit)]
        if paths in ([], [GITATTRIBUTES]):
            return Seen(commit, empty=True)
        return Seen(commit, reason=f"there is no {manifest.NAME} among its {len(paths)} files")
    try:
        record = manifest.Manifest.from_bytes(content, where)
    except HubError as error:
        return Seen(commit, reason=f"its {manifest.NAME} cannot be read: {error.what}")
    if record.branch != branch:
        return Seen(commit, reason=f"its {manifest.NAME} is that of branch {record.branch}")
    digest = hashlib.sha256(content).hexdigest()
    return Seen(commit, record.step, record.source.commit, record.plan, record.card, digest)
