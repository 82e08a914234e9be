"""What is published of a release: refs, and as few reads as the answer takes.

A finished release costs one request, its refs, where the ledger knows every tip; and two without a ledger: `main`'s
``checkpoints.json`` is believed for a branch only where the commit that it names is the branch's tip. Where neither
knows a tip, that branch's own ``publish.json`` is read and compared with the branch's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from publish.errors import HubError
from publish.hub import checkpoints, manifest
from publish.hub.branchfile import GITATTRIBUTES
from publish.hub.checkpoints import CheckpointRecord, Checkpoints
from publish.hub.ledger import Ledger, LedgerEntry
from publish.hub.manifest import Manifest
from publish.hub.status import CardOf, Expected, Seen, StepStatus, judge, short
from publish.wire.client import Client
from publish.wire.download import fetch_text_if_there
from publish.wire.repo import TreeEntry, list_branches, list_tree

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
    content = fetch_text_if_there(client, repo, main, checkpoints.NAME) if main else None
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
    content = fetch_text_if_there(client, repo, commit, manifest.NAME) if manifest.NAME in paths else None
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
