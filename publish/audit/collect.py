"""A repo as it is published, gathered into a :class:`Suite`: many small requests, as many at once as a Hub bears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from publish.audit.names import Names, expectation, read_names
from publish.audit.reader import Reader
from publish.audit.records import MAIN, Branch, Suite, digest
from publish.audit.weights import INDICES, SAFETENSORS, weight_sets
from publish.errors import HubError
from publish.formats.safetensors import PREFIX, Header
from publish.hub.reads import TreeEntry, latest_commits
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.manifest import Manifest
from publish.release_file import Release

README, CONFIG = "README.md", "config.json"
SMALL = (README, CONFIG, *INDICES)
AT_ONCE = 16
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the audit is asked for: a schedule's name or steps, the release file, the names of branches."""

    schedule: str | tuple[int, ...] | None = None
    release: Release | None = None
    pattern: str | None = None


def collect(reader: Reader, repo: str, wanted: Wanted) -> Suite:
    """Refs and trees of all steps and of `main`; their cards, configs and indices; headers; records.

    Raises:
        HubError: no such repo, no access, no connection; an answer that contradicts another.
        ScheduleError: the pattern names no steps.
    """
    tips = reader.branches(repo)
    names = read_names(tips, wanted.pattern)
    chosen = [name for name in tips if name == MAIN or name in names.labels]
    trees = in_parallel(lambda name: reader.tree(repo, tips[name]), chosen)
    branches = [
        Branch(name, tips[name], names.labels.get(name), tree) for name, tree in zip(chosen, trees, strict=True)
    ]
    branches = in_parallel(lambda branch: _with_texts(reader, repo, branch, SMALL), branches)
    listed = _checkpoints(reader, repo, branches)
    release = wanted.release if wanted.release and wanted.release.target == repo else None
    if listed is not None or release is not None:
        branches = _with_records(reader, repo, branches, listed, history=release is not None)
    branches = _with_headers(reader, repo, branches)
    return _suite(repo, names, branches, listed or {}, replace(wanted, release=release))


def _suite(
    repo: str, names: Names, branches: list[Branch], records: Mapping[str, CheckpointRecord], wanted: Wanted
) -> Suite:
    steps = sorted((each for each in branches if each.label), key=lambda each: (each.series, each.step, each.name))
    expected = expectation(steps, records, wanted.schedule, wanted.release)
    if not steps and expected.steps is None:
        fix = "name them with --branches, such as ckpt_{step}"
        raise HubError(f"none of its {len(branches)} branches is named like a step", repo, fix)
    equal = {frozenset((record.step, *record.equal)) for record in records.values() if record.equal}
    equal |= {frozenset(each.steps) for each in (wanted.release.expect if wanted.release else ())}
    return Suite(
        repo=repo,
        main=next((each for each in branches if each.name == MAIN), None),
        steps=tuple(steps),
        odd=names.odd,
        expectation=expected,
        records=records,
        release=wanted.release,
        declared=tuple(equal),
    )


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of every item, several at once, in order; the first failure ends it."""
    with ThreadPoolExecutor(AT_ONCE, "audit") as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _with_texts(reader: Reader, repo: str, branch: Branch, paths: Iterable[str]) -> Branch:
    there = [branch.files[path] for path in paths if path in branch.files and path not in branch.texts]
    read = {entry.path: reader.text(repo, branch.commit, entry) for entry in there}
    return replace(branch, texts={**branch.texts, **read})


def _checkpoints(reader: Reader, repo: str, branches: Iterable[Branch]) -> Mapping[str, CheckpointRecord] | None:
    """What ``checkpoints.json`` on `main` lists, by branch; None where there is none, or somebody else's of that name.

    Raises:
        HubError: there is one beside a ``publish.json``, so it is ours, and it cannot be read.
    """
    main = next((branch for branch in branches if branch.name == MAIN), None)
    if main is None or checkpoints.NAME not in main.files:
        return None
    content = reader.text(repo, main.commit, main.files[checkpoints.NAME])
    try:
        return Checkpoints.from_bytes(content, f"{repo}@{main.commit}/{checkpoints.NAME}").by_branch()
    except HubError:
        if manifest.NAME in main.files:
            raise
        return None


def _with_records(
    reader: Reader,
    repo: str,
    branches: list[Branch],
    listed: Mapping[str, CheckpointRecord] | None,
    *,
    history: bool,
) -> list[Branch]:
    """``publish.json`` of branches that ``checkpoints.json`` does not vouch for, and (``history``) their commits."""

    def read(branch: Branch) -> Branch:
        record = (listed or {}).get(branch.name)
        if record is not None and record.commit == branch.commit:
            return branch
        commits = latest_commits(reader.client, repo, branch.commit) if history and record else ()
        if manifest.NAME not in branch.files:
            return replace(branch, history=commits)
        in_git = [path for path, entry in branch.files.items() if entry.lfs_sha256 is None]
        branch = _with_texts(reader, repo, branch, in_git)  # the manifest, and all that it states the sha256 of
        found = _manifest(branch.texts[manifest.NAME], f"{repo}@{branch.commit}/{manifest.NAME}")
        return replace(branch, manifest=found, history=commits)

    return in_parallel(read, branches)


def _manifest(content: bytes, where: str) -> Manifest | None:
    try:
        return Manifest.from_bytes(content, where)
    except HubError:
        return None  # `texts` has it: the check of records says that it cannot be read


def _with_headers(reader: Reader, repo: str, branches: list[Branch]) -> list[Branch]:
    """Every safetensors header, each content once; one of every name goes first and tells how long the others are."""
    files: dict[str, tuple[Branch, TreeEntry]] = {}
    for branch in branches:
        weights = weight_sets(branch).get(SAFETENSORS)
        for entry in weights.files if weights else ():
            _, same = files.setdefault(digest(entry), (branch, entry))
            if same.size != entry.size:
                what = f"{digest(entry)[:12]} has {same.size:,} bytes, and {entry.size:,} on {branch.name}"
                raise HubError(what, f"{repo}@{branch.commit}/{entry.path}", "report it to those who run the server")
    first = {entry.path: key for key, (_, entry) in reversed(files.items())}
    keys = [*first.values(), *(key for key in files if key not in set(first.values()))]
    headers: dict[str, Header] = {}

    def read(key: str) -> Header:
        branch, entry = files[key]
        known = headers.get(first[entry.path])
        return reader.header(repo, branch.commit, entry, known.begin if known else PREFIX)

    for part in (keys[: len(first)], keys[len(first) :]):
        headers.update(zip(part, in_parallel(read, part), strict=True))
    return [
        replace(each, headers={p: headers[digest(e)] for p, e in each.files.items() if digest(e) in headers})
        for each in branches
    ]
