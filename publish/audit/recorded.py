"""What was recorded at the release against what is there: ``publish.json``, ``checkpoints.json``, the release file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from publish.audit.duplicates import FIRST_STEPS
from publish.audit.names import has_weights
from publish.audit.records import Branch, Suite, digest, evidence_of, named, steps_of
from publish.audit.weights import SAFETENSORS, weight_sets
from publish.hub.reads import TreeEntry, git_blob_sha1
from publish.hub.transaction import README
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Finding
from publish.records.manifest import Manifest

Explained = frozenset[tuple[str, str]]


def not_as_recorded(suite: Suite, explained: Explained) -> Iterator[Finding]:
    """Branches that are not as their manifest or ``checkpoints.json`` says, where no other finding explains it."""
    if not suite.ours and suite.release is None:
        return
    known = {branch for branch, _ in explained}
    for branch in (*suite.steps, *([suite.main] if suite.main else [])):
        record = suite.records.get(branch.name)
        listed = list(_differences(branch, record, ours=suite.ours))
        told = [(path, what) for path, what in listed if (branch.name, path) not in explained]
        if (listed and not told) or (branch.name, "") in explained:
            continue  # all that differs has a finding of its own
        moved = record is not None and record.commit != branch.commit
        if not listed and record is not None and moved and branch.name not in known:
            theirs = f"{checkpoints.NAME} on main names commit {record.commit[:12]}"
            told = [("", f"{theirs}, and the branch is at {branch.commit[:12]}{_by_whom(branch)}")]
        if told:
            evidence = tuple(evidence_of(branch, branch.files.get(path), what) for path, what in told)
            rest = f", and {len(told) - 1} more" if len(told) > 1 else ""
            what = f"{branch.name}: {told[0][1]}{rest}{_by_whom(branch) if told[0][0] else ''}"
            yield Finding("not-as-recorded", steps_of([branch]), what, evidence, suite.repo)


def _differences(branch: Branch, record: CheckpointRecord | None, *, ours: bool) -> Iterator[tuple[str, str]]:
    """(path, what differs) of a branch that was read; one that ``checkpoints.json`` vouches for was not."""
    weights = weight_sets(branch).get(SAFETENSORS)
    if record is not None and weights is not None and sorted(record.weights) != list(weights.identity):
        for entry in weights.files:
            if digest(entry) not in record.weights:
                yield entry.path, f"{entry.path} has another digest than {checkpoints.NAME} on main lists"
    if record is not None and record.commit == branch.commit:
        return
    if branch.manifest is not None:
        yield from against_manifest(branch, branch.manifest)
    elif manifest.NAME in branch.texts:
        yield manifest.NAME, f"{manifest.NAME} cannot be read"
    elif ours and manifest.NAME not in branch.files and has_weights(branch):
        yield manifest.NAME, f"there is no {manifest.NAME}"


def against_manifest(branch: Branch, recorded: Manifest) -> Iterator[tuple[str, str]]:
    """(path, what differs) between files and manifest; those in git are compared where they were read."""
    if branch.label and recorded.branch != branch.name:
        yield manifest.NAME, f"its {manifest.NAME} is that of {recorded.branch}"
        return
    for file in recorded.files:
        if branch.label is None and file.path == README:
            continue  # main has the suite's card, and files of its own
        entry = branch.files.get(file.path)
        if entry is None:
            yield file.path, f"{file.path} is gone"
        elif entry.size != file.size or not _same(branch, entry, file.sha256):
            yield file.path, f"{file.path} is not the file that {manifest.NAME} records"
    listed = {file.path for file in recorded.files} | {manifest.NAME, ".gitattributes"}
    for path in branch.files if branch.label else ():
        if path not in listed:
            yield path, f"{path} is not in {manifest.NAME}"


def _same(branch: Branch, entry: TreeEntry, sha256: str) -> bool:
    if entry.lfs_sha256 is not None:
        return entry.lfs_sha256 == sha256
    content = branch.texts.get(entry.path)
    if content is None or git_blob_sha1(content) != entry.oid:
        return True  # its size is as recorded; the bytes were not asked for
    return hashlib.sha256(content).hexdigest() == sha256


def _by_whom(branch: Branch) -> str:
    if not branch.history:
        return ""
    newest = branch.history[0]
    authors = ", ".join(newest.authors) or "somebody"
    return f" (commit {newest.id[:12]} by {authors}, {newest.date[:10]}: {newest.title!r})"


def broken_expectations(suite: Suite) -> Iterator[Finding]:
    """Steps that the release declares equal and that differ."""
    for expected in suite.release.expect if suite.release else ():
        branches = [branch for branch in suite.steps if branch.step in expected.steps]
        models = {found.identity for branch in branches if (found := weight_sets(branch).get(SAFETENSORS))}
        if len(models) > 1:
            what = f"{named(branches)} are declared equal ({expected.because}) and differ"
            evidence = tuple(evidence_of(branch, e) for branch in branches for e in _files(branch))
            yield Finding("not-as-recorded", steps_of(branches), what, evidence, suite.repo)


def _files(branch: Branch) -> tuple[TreeEntry, ...]:
    found = weight_sets(branch).get(SAFETENSORS)
    return found.files if found else ()


def known_effects(suite: Suite) -> Iterator[str]:
    """What is equal and no finding: said, so that nobody takes silence for proof."""
    first = [branch for branch in suite.steps if branch.step in FIRST_STEPS and not branch.series]
    identities = {found.identity for branch in first if (found := weight_sets(branch).get(SAFETENSORS))}
    if len(first) == 2 and len(identities) == 1:
        declared = any(equal >= FIRST_STEPS for equal in suite.declared)
        reason = "as declared" if declared else "the learning rate is 0 at the first iteration (gpt-neox#1373)"
        yield f"step0 and step1 hold the same weights: {reason}"
