"""A published repo, read into a :class:`Suite`: many small requests, several at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from publish.audit.names import MAIN, read_names
from publish.audit.reader import Reader, in_parallel
from publish.audit.records import CONFIG, README, WEIGHT_FORMATS, Branch, Suite, digest
from publish.audit.schedule import expected_steps
from publish.errors import HubError
from publish.formats.safetensors import PREFIX, Header
from publish.hub.reads import TreeEntry, latest_commits
from publish.records import checkpoints, manifest
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.manifest import Manifest
from publish.release_file import Release

SMALL_FILES = (README, CONFIG, *(kind.index for kind in WEIGHT_FORMATS))


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """``schedule``: a name or steps. ``pattern``: how step branches are named. ``deep``: steps whose weights to sample.

    ``release``: the release file of one of the repos.
    """

    schedule: str | tuple[int, ...] | None = None
    release: Release | None = None
    pattern: str | None = None
    deep: tuple[int, ...] = ()


def collect(reader: Reader, repo: str, options: AuditOptions) -> Suite:
    """Refs; trees, cards, configs, indices and headers of all steps and of ``main``; the records of the release.

    Raises:
        HubError: no such repo, no access, no connection; an answer that contradicts another; no branch is a step.
        ScheduleError: the schedule or the pattern cannot be used.
    """
    tips = reader.branches(repo)
    names = read_names(tips, options.pattern)
    chosen = [name for name in tips if name == MAIN or name in names.labels]
    trees = in_parallel(lambda name: reader.tree(repo, tips[name]), chosen)
    branches = [
        Branch(name, tips[name], names.labels.get(name), tree) for name, tree in zip(chosen, trees, strict=True)
    ]
    branches = in_parallel(lambda branch: _with_contents(reader, repo, branch, SMALL_FILES), branches)
    recorded = _read_checkpoints(reader, repo, branches)
    release = options.release if options.release and options.release.target == repo else None
    if recorded is not None or release is not None:
        branches = _with_manifests(reader, repo, branches, recorded or {}, history=release is not None)
    branches = _with_headers(reader, repo, branches)

    steps = sorted((b for b in branches if b.label), key=lambda b: (b.series, b.step, b.name))
    expected = expected_steps(names, recorded or {}, options.schedule, release)
    if not steps and expected.steps is None:
        fix = "say how the steps are named with --branches, such as ckpt_{step}"
        raise HubError(f"none of the {len(tips)} branches is named like a step", repo, fix)
    declared = {frozenset((record.step, *record.equal)) for record in (recorded or {}).values() if record.equal}
    declared |= {frozenset(equal.steps) for equal in (release.expect if release else ())}
    return Suite(
        repo=repo,
        main=next((branch for branch in branches if branch.name == MAIN), None),
        steps=tuple(steps),
        names=names,
        expected=expected,
        recorded=recorded or {},
        release=release,
        declared_equal=tuple(declared),
    )


def _with_contents(reader: Reader, repo: str, branch: Branch, paths: Iterable[str]) -> Branch:
    unread = [branch.files[path] for path in paths if path in branch.files and path not in branch.contents]
    read = {entry.path: reader.small_file(repo, branch.commit, entry) for entry in unread}
    return replace(branch, contents={**branch.contents, **read})


def _read_checkpoints(reader: Reader, repo: str, branches: Iterable[Branch]) -> Mapping[str, CheckpointRecord] | None:
    """What ``checkpoints.json`` on ``main`` lists, by branch; None where there is none, or another tool's.

    Raises:
        HubError: it cannot be read, although a ``publish.json`` beside it shows that this tool wrote it.
    """
    main = next((branch for branch in branches if branch.name == MAIN), None)
    if main is None or checkpoints.NAME not in main.files:
        return None
    content = reader.small_file(repo, main.commit, main.files[checkpoints.NAME])
    try:
        return Checkpoints.from_bytes(content, f"{repo}@{main.commit}/{checkpoints.NAME}").by_branch()
    except HubError:
        if manifest.NAME in main.files:
            raise
        return None


def _with_manifests(
    reader: Reader, repo: str, branches: list[Branch], recorded: Mapping[str, CheckpointRecord], *, history: bool
) -> list[Branch]:
    """Branches with their ``publish.json`` and (``history``) commits, unless they are at the commit that is recorded.

    With a manifest come all files outside LFS: it states their SHA-256, and the tree only their git blob id.
    """

    def read(branch: Branch) -> Branch:
        record = recorded.get(branch.name)
        if record is not None and record.commit == branch.commit:
            return branch
        commits = latest_commits(reader.client, repo, branch.commit) if history and record else ()
        if manifest.NAME not in branch.files:
            return replace(branch, history=commits)
        in_git = [path for path, entry in branch.files.items() if entry.lfs_sha256 is None]
        branch = _with_contents(reader, repo, branch, in_git)
        found = _parse_manifest(branch.contents[manifest.NAME], f"{repo}@{branch.commit}/{manifest.NAME}")
        return replace(branch, manifest=found, history=commits)

    return in_parallel(read, branches)


def _parse_manifest(content: bytes, where: str) -> Manifest | None:
    try:
        return Manifest.from_bytes(content, where)
    except HubError:
        return None  # `contents` has the bytes: `not_as_recorded` reports that they cannot be read


def _with_headers(reader: Reader, repo: str, branches: list[Branch]) -> list[Branch]:
    """Branches with every safetensors header, each content read once.

    One file of every name is read first: its header's length is the guess for the others of that name.
    """
    files: dict[str, tuple[Branch, TreeEntry]] = {}
    for branch in branches:
        for entry in branch.safetensors.files if branch.safetensors else ():
            _, same = files.setdefault(digest(entry), (branch, entry))
            if same.size != entry.size:
                what = f"{digest(entry)[:12]} has {same.size:,} bytes on one branch and {entry.size:,} on {branch.name}"
                raise HubError(what, f"{repo}@{branch.commit}/{entry.path}", "report it to those who run the server")
    first = {entry.path: key for key, (_, entry) in reversed(files.items())}
    others = [key for key in files if key not in set(first.values())]
    headers: dict[str, Header] = {}

    def read(key: str) -> Header:
        branch, entry = files[key]
        known = headers.get(first[entry.path])
        return reader.header(repo, branch.commit, entry, known.begin if known else PREFIX)

    for keys in (list(first.values()), others):
        headers.update(zip(keys, in_parallel(read, keys), strict=True))
    return [
        replace(
            branch,
            headers={path: headers[digest(entry)] for path, entry in branch.files.items() if digest(entry) in headers},
        )
        for branch in branches
    ]
