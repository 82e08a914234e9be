"""Files that a step's branch did not get by its own release: they came with the parent, mostly `main`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from publish.audit.records import Branch, Suite, digest, evidence_of, named, steps_of
from publish.audit.weights import FORMATS, weight_paths, weight_sets
from publish.hub.reads import TreeEntry
from publish.records import checkpoints, manifest
from publish.records.findings import Finding
from publish.text import some

FEWEST = 3  # siblings, from which what most of them have is a rule
README = "README.md"
EVERYWHERE = frozenset({".gitattributes", README, "config.json"})  # their checks are others


def inherited_files(suite: Suite) -> Iterator[Finding]:
    """Files that the branch's own manifest does not list, or that a few steps have and their siblings lack.

    One finding for each set of files, with all steps that have it.
    """
    counts = Counter(path for branch in suite.steps for path in _kinds(branch).values())
    found: dict[tuple[str, ...], list[Branch]] = {}
    for branch in suite.steps:
        if odd := _odd(branch, suite, counts):
            found.setdefault(odd, []).append(branch)
    for paths, branches in found.items():
        evidence = tuple(
            evidence_of(each, each.files[path], _origin(each, path, suite)) for each in branches for path in paths
        )
        what = f"{named(branches)}: {some(paths, 6)}, which the other steps do not have"
        yield Finding("inherited-files", steps_of(branches), what, evidence, suite.repo)


def _odd(branch: Branch, suite: Suite, counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted({*_surplus(branch, suite, counts), *_of_main(branch, suite)}))


def _of_main(branch: Branch, suite: Suite) -> Iterator[str]:
    """The card and the manifest, where they are those of `main` and most steps but the last have their own."""
    finals = {each.name for each in suite.finals}
    others = [each.files for each in suite.steps if each.name not in finals]
    for path in (README, manifest.NAME) if branch.name not in finals else ():
        theirs = _digest_at(suite.main.files if suite.main else {}, path)
        same = sum(_digest_at(files, path) == theirs for files in others)
        if theirs is not None and _digest_at(branch.files, path) == theirs and 2 * same < len(others):
            yield path


def _digest_at(files: Mapping[str, TreeEntry], path: str) -> str | None:
    return digest(files[path]) if path in files else None


def _surplus(branch: Branch, suite: Suite, counts: Mapping[str, int]) -> tuple[str, ...]:
    if branch.manifest is not None and branch.manifest.branch == branch.name:
        listed = {file.path for file in branch.manifest.files} | {manifest.NAME}
        surplus = {path for path in branch.files if path not in listed} - {".gitattributes"}
        return tuple(sorted(surplus))
    siblings = len(suite.steps)
    if siblings < FEWEST:
        return ()
    kinds = _kinds(branch)
    rare = {path for path, kind in kinds.items() if 2 * counts[kind] < siblings and path not in EVERYWHERE}
    own = _own_weights(branch)
    return tuple(sorted(path for path in rare if path not in own))


def _kinds(branch: Branch) -> dict[str, str]:
    """Path -> what is counted: the path, or the format of a weight file (branches may be sharded differently)."""
    kinds = {path: path for path in branch.files}
    for path in weight_paths(branch):
        kinds[path] = next(form.name for form in FORMATS if path.split(".")[-1] in form.single or form.index == path)
    return kinds


def _own_weights(branch: Branch) -> frozenset[str]:
    """The weights of a branch that has them in one format only: they are what it is, however rare the format."""
    sets = weight_sets(branch)
    if len(sets) != 1:
        return frozenset()
    (only,) = sets.values()
    index = next(form.index for form in FORMATS if form.name == only.format)
    return frozenset({*(entry.path for entry in only.files), index})


def _origin(branch: Branch, path: str, suite: Suite) -> str:
    if path == checkpoints.NAME:
        return "belongs on main"
    theirs = suite.main.files.get(path) if suite.main else None
    return "the same file is on main" if theirs and digest(theirs) == digest(branch.files[path]) else ""
