"""Checks of a branch's files against its siblings, and against what was recorded when it was released."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from publish.audit.records import (
    CONFIG,
    GITATTRIBUTES,
    README,
    WEIGHT_FORMATS,
    Branch,
    Explained,
    Suite,
    digest,
    shorten,
)
from publish.hub.reads import TreeEntry, git_blob_sha1
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord
from publish.records.findings import Finding
from publish.records.manifest import Manifest
from publish.text import some

MIN_SIBLINGS = 3  # steps, from which what most of them have is a rule
ON_EVERY_BRANCH = frozenset({GITATTRIBUTES, README, CONFIG})  # checked elsewhere


def inherited_files(suite: Suite) -> Iterator[Finding]:
    """Files that came with the branch's parent, mostly ``main``: its own release did not put them there.

    They are not in the branch's manifest, or only a few steps have them. One finding for each set of files, with all
    steps that have it.
    """
    counts = Counter(kind for branch in suite.steps for kind in _kinds(branch).values())
    found: dict[tuple[str, ...], list[Branch]] = {}
    for branch in suite.steps:
        if paths := {*_surplus(branch, suite, counts), *_copied_from_main(branch, suite)}:
            found.setdefault(tuple(sorted(paths)), []).append(branch)
    for files, branches in found.items():
        evidence = [branch.evidence(path, _origin(branch, path, suite)) for branch in branches for path in files]
        have = "have" if len(branches) > 1 else "has"
        what = f"{shorten(branches)} {have} {some(files, 6)}, unlike the other steps"
        yield suite.finding("inherited-files", branches, what, evidence)


def _surplus(branch: Branch, suite: Suite, counts: Mapping[str, int]) -> set[str]:
    """The files that the branch's own manifest does not list; without one, those that less than half the steps have."""
    if branch.manifest is not None and branch.manifest.branch == branch.name:
        return branch.files.keys() - _listed(branch.manifest)
    if len(suite.steps) < MIN_SIBLINGS:
        return set()
    rare = {path for path, kind in _kinds(branch).items() if 2 * counts[kind] < len(suite.steps)} - ON_EVERY_BRANCH
    if len(branch.weights) == 1:  # however rare their format, they are all that the branch has
        rare -= {entry.path for weights in branch.weights.values() for entry in weights.files}
        rare -= {kind.index for kind in WEIGHT_FORMATS if kind.name in branch.weights}
    return rare


def _kinds(branch: Branch) -> dict[str, str]:
    """Path -> what is counted: the path, or the format of a weight file (branches may be sharded differently)."""
    kinds = {path: path for path in branch.files}
    for path in branch.files:
        for weight_format in WEIGHT_FORMATS:
            if path in (weight_format.single, weight_format.index) or weight_format.shard.fullmatch(path):
                kinds[path] = weight_format.name
    return kinds


def _copied_from_main(branch: Branch, suite: Suite) -> Iterator[str]:
    """The card and the manifest, where they are those of ``main`` although most steps have their own."""
    if suite.main is None or branch in suite.last_steps:
        return
    others = [step for step in suite.steps if step not in suite.last_steps]
    for path in (README, manifest.NAME):
        on_main = suite.main.files.get(path)
        if on_main is not None and _has(branch, on_main) and 2 * sum(_has(b, on_main) for b in others) < len(others):
            yield path


def _has(branch: Branch, entry: TreeEntry) -> bool:
    """Whether the branch has this file, with this content."""
    return entry.path in branch.files and digest(branch.files[entry.path]) == digest(entry)


def _origin(branch: Branch, path: str, suite: Suite) -> str:
    if path == checkpoints.NAME:
        return "belongs on main"
    return "the same file is on main" if suite.main and _has(suite.main, branch.files[path]) else ""


def _listed(recorded: Manifest) -> set[str]:
    """The paths that a branch with this manifest has."""
    return {file.path for file in recorded.files} | {manifest.NAME, GITATTRIBUTES}


def broken_expectations(suite: Suite) -> Iterator[Finding]:
    """Steps that the release file declares equal, and whose weights differ."""
    for expected in suite.release.expect if suite.release else ():
        branches = [branch for branch in suite.steps if branch.step in expected.steps]
        if len({branch.safetensors.identity for branch in branches if branch.safetensors}) > 1:
            what = f"{shorten(branches)} differ, but the release file declares them equal ({expected.because})"
            evidence = [item for branch in branches for item in branch.weight_evidence("safetensors")]
            yield suite.finding("not-as-recorded", branches, what, evidence)


def not_as_recorded(suite: Suite, explained: Explained) -> Iterator[Finding]:
    """Branches that differ from their manifest or ``checkpoints.json``, unless other findings explain all of it."""
    if not suite.has_records and suite.release is None:
        return
    branches_with_findings = {branch for branch, _ in explained}
    for branch in suite.branches:
        record = suite.recorded.get(branch.name)
        differing = list(_differences(branch, record, has_records=suite.has_records))
        problems = [(path, what) for path, what in differing if (branch.name, path) not in explained]
        if (differing and not problems) or (branch.name, "") in explained:
            continue
        moved = record is not None and record.commit != branch.commit
        if record is not None and moved and not differing and branch.name not in branches_with_findings:
            listed = f"{checkpoints.NAME} on main lists commit {record.commit[:12]}"
            problems = [("", f"{listed}, but the branch is at {branch.commit[:12]}")]
        if problems:
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            what = f"{branch.name}: {problems[0][1]}{more}{_last_commit(branch)}"
            evidence = [branch.evidence(path, problem) for path, problem in problems]
            yield suite.finding("not-as-recorded", [branch], what, evidence)


def _differences(branch: Branch, record: CheckpointRecord | None, *, has_records: bool) -> Iterator[tuple[str, str]]:
    """(path, what differs). A branch at the commit that ``checkpoints.json`` lists is compared by its weights only."""
    weights = branch.safetensors
    if record is not None and weights is not None and sorted(record.weights) != list(weights.identity):
        for entry in weights.files:
            if digest(entry) not in record.weights:
                yield entry.path, f"{entry.path} has another digest than {checkpoints.NAME} on main lists"
    if record is not None and record.commit == branch.commit:
        return
    if branch.manifest is not None:
        yield from _against_manifest(branch, branch.manifest)
    elif manifest.NAME in branch.contents:
        yield manifest.NAME, f"{manifest.NAME} cannot be read"
    elif has_records and manifest.NAME not in branch.files and branch.has_weights:
        yield manifest.NAME, f"{manifest.NAME} is missing"


def _against_manifest(branch: Branch, recorded: Manifest) -> Iterator[tuple[str, str]]:
    """(path, what differs) between the files and the manifest; those outside LFS are compared where they were read."""
    if branch.label and recorded.branch != branch.name:
        yield manifest.NAME, f"its {manifest.NAME} is that of {recorded.branch}"
        return
    for file in recorded.files:
        if branch.label is None and file.path == README:
            continue  # main has the card of the whole suite
        entry = branch.files.get(file.path)
        if entry is None:
            yield file.path, f"{file.path} is missing"
        elif entry.size != file.size or not _matches(branch, entry, file.sha256):
            yield file.path, f"{file.path} is not the file that {manifest.NAME} records"
    if branch.label:
        for path in branch.files:
            if path not in _listed(recorded):
                yield path, f"{path} is not in {manifest.NAME}"


def _matches(branch: Branch, entry: TreeEntry, sha256: str) -> bool:
    """Whether the content may have this SHA-256; True where it was not read."""
    if entry.lfs_sha256 is not None:
        return entry.lfs_sha256 == sha256
    content = branch.contents.get(entry.path)
    if content is None or git_blob_sha1(content) != entry.oid:
        return True
    return hashlib.sha256(content).hexdigest() == sha256


def _last_commit(branch: Branch) -> str:
    """Who committed last, where the history was read."""
    if not branch.history:
        return ""
    newest = branch.history[0]
    authors = ", ".join(newest.authors) or "unknown"
    return f" (commit {newest.id[:12]} by {authors}, {newest.date[:10]}: {newest.title!r})"
