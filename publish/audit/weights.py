"""Checks of the weight files, by digests, sizes, headers and indices: no weights are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

from publish.audit.records import (
    BIN,
    SAFETENSORS,
    WEIGHT_FORMATS,
    Branch,
    Suite,
    WeightSet,
    digest,
    names_of,
    shorten,
    steps_of,
)
from publish.hub.reads import TreeEntry
from publish.records.findings import Finding
from publish.text import some

# The learning rate is 0 at GPT-NeoX's first iteration, so step 1 equals step 0 in every suite trained before May 2026
# (pythia#83, gpt-neox#1373).
FIRST_STEPS = frozenset({0, 1})
SAME_START = "data-seed"  # runs of another data order start from the same weights (pythia-160m-data-seed1..3)
MIN_SIZE = 0.99  # of the median size on other branches: pickled files of one model differ only by padding


def duplicate_weights(suite: Suite) -> Iterator[Finding]:
    """One finding for each set of steps with equal weights, in either format."""
    reported: set[tuple[str, ...]] = set()
    for kind in WEIGHT_FORMATS:
        for same in _equal_branches(suite.steps, kind.name):
            names = names_of(same)
            if names in reported or is_declared(suite, same):
                continue
            reported.add(names)
            what = f"{shorten(same)} have the same weights"
            main = suite.main.weights.get(kind.name) if suite.main else None
            if main and main.identity == same[0].weights[kind.name].identity:
                what += ", and so has main"
            evidence = [item for branch in same for item in branch.weight_evidence(kind.name)]
            yield suite.finding("duplicate-weights", same, what, evidence)


def _equal_branches(branches: Sequence[Branch], weight_format: str) -> list[list[Branch]]:
    """Two or more branches each, whose weight files of this format have the same digests."""
    groups: dict[tuple[str, ...], list[Branch]] = {}
    for branch in branches:
        weights = branch.weights.get(weight_format)
        if weights and weights.files:
            groups.setdefault(weights.identity, []).append(branch)
    return [group for group in groups.values() if len(group) > 1]


def is_declared(suite: Suite, same: Sequence[Branch]) -> bool:
    """Whether the release or the manifest declares these branches equal.

    Without a release file that says otherwise, steps 0 and 1 may be equal: see :data:`FIRST_STEPS`. So may the first
    steps of several stages and the one step that they started from; branches of different seeds may not.
    """
    steps = frozenset(branch.step for branch in same)
    stages, seeds = zip(*(branch.series for branch in same), strict=True)
    if len(set(seeds)) > 1:
        return False
    if len(set(stages)) > 1:
        return len([branch for branch in same if branch.step != 0]) <= 1
    return any(steps <= equal for equal in suite.declared_equal) or (suite.release is None and steps == FIRST_STEPS)


def equal_first_steps(suite: Suite) -> Iterator[str]:
    """A note for steps 0 and 1 that are equal and not a finding, so that the report does not pass over it."""
    declared = any(equal >= FIRST_STEPS for equal in suite.declared_equal)
    reason = "as declared" if declared else "the learning rate is 0 at the first iteration (gpt-neox#1373)"
    for same in _equal_branches(suite.steps, SAFETENSORS):
        if {branch.step for branch in same} == FIRST_STEPS and is_declared(suite, same):
            yield f"{' and '.join(names_of(same))} have the same weights: {reason}"


def main_not_final(suite: Suite) -> Iterator[Finding]:
    """``main`` has other weights than the last step, or none."""
    main, last = suite.main, suite.last_step
    if main is None:
        yield suite.finding("main-not-final", [], "there is no branch main")
        return
    holds = _step_equal_to(suite, main)
    if (holds in suite.last_steps and main.weights) or (last and not last.weights):
        return  # a last step without weights is reported as missing
    if last is None and holds is None and main.weights:
        return  # the last step is missing, which is reported, or several series end and main may be made of them
    name = last.name if last else "the last step"
    if not main.weights:
        what = "main has no weights"
    elif last and not main.weights.keys() & last.weights.keys():
        what = f"main and {name} have no weight file of the same format"
    else:
        what = f"main does not have the weights of {name}" + (f" but those of {holds.name}" if holds else "")
    branches = [branch for branch in (main, last) if branch]
    evidence = [item for branch in branches for item in branch.weight_evidence()] or [main.evidence()]
    yield suite.finding("main-not-final", branches, what, evidence)


def _step_equal_to(suite: Suite, main: Branch) -> Branch | None:
    """The step whose weights ``main`` has; a last one before others."""
    identities = {name: weights.identity for name, weights in main.weights.items()}
    for branch in (*suite.last_steps, *reversed(suite.steps)):
        if any(identities.get(name) == weights.identity for name, weights in branch.weights.items()):
            return branch
    return None


def shared_shards(suite: Suite) -> Iterator[Finding]:
    """Steps that share some of their shards, but not all.

    Where the last step or ``main`` is among them, it is taken to be right, since branches are created from it. Else
    nothing tells which one is right, and all are named.
    """
    reported: set[tuple[str, ...]] = set()
    for kind in WEIGHT_FORMATS:
        sets = {branch.name: branch.weights[kind.name] for branch in suite.branches if kind.name in branch.weights}
        for names, digests in _partly_shared(sets).items():
            sharing = [branch for branch in suite.branches if branch.name in names]
            owners = [branch for branch in sharing if branch is suite.last_step or branch is suite.main]
            wrong = [branch for branch in sharing if branch not in owners]
            if not wrong:
                wrong, owners = sharing, []
            if names_of(wrong) in reported:
                continue
            reported.add(names_of(wrong))
            shards = {entry.path for name in names for entry in sets[name].files if digest(entry) in digests}
            verb = "have" if len(wrong) > 1 else "has"
            what = f"{shorten(wrong)} {verb} {', '.join(sorted(shards))} of {shorten(owners) or 'each other'}"
            what += f", and other shards of {'their' if len(wrong) > 1 else 'its'} own"
            evidence = [
                branch.evidence(entry.path)
                for branch in (*wrong, *owners)
                for entry in sets[branch.name].files
                if digest(entry) in digests
            ]
            yield suite.finding("mixed-shards", wrong, what, evidence)


def _partly_shared(sets: Mapping[str, WeightSet]) -> dict[tuple[str, ...], set[str]]:
    """Branches that share some shards and not all -> the digests of the shared ones."""
    holders: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for name, weights in sets.items():
        for shard in set(weights.identity):
            holders.setdefault(shard, {}).setdefault(weights.identity, []).append(name)
    shared: dict[tuple[str, ...], set[str]] = {}
    for shard, models in holders.items():
        if len(models) > 1:
            names = tuple(sorted(name for same in models.values() for name in same))
            shared.setdefault(names, set()).add(shard)
    return shared


def shards_against_index(suite: Suite) -> Iterator[Finding]:
    """Shards whose headers have other tensors than the index states."""
    for branch in suite.steps:
        weights = branch.safetensors
        if weights is None or weights.index is None or weights.missing:
            continue
        headers = {entry.path: branch.headers[entry.path] for entry in weights.files if entry.path in branch.headers}
        if not all(header.tensors for header in headers.values()):
            continue  # a truncated shard is reported as a size mismatch
        stated = weights.index.files
        found = {tensor.name: path for path, header in headers.items() for tensor in header.tensors}
        wrong = sorted(name for name, path in stated.items() if found.get(name) != path)
        wrong += sorted(found.keys() - stated.keys())
        if wrong:
            name = wrong[0]
            files = stated.get(name, "no file"), found.get(name, "no file")
            tensors = "1 tensor" if len(wrong) == 1 else f"{len(wrong):,} tensors"
            what = f"{branch.name}: index and shards disagree on {tensors}: {name} is in {files[1]}, not in {files[0]}"
            evidence = [branch.evidence(entry.path) for entry in weights.files if entry.path in files]
            yield suite.finding("mixed-shards", [branch], what, evidence)


def no_safetensors(suite: Suite) -> Iterator[Finding]:
    """Branches that have weights, but none in safetensors."""
    without = [branch for branch in suite.branches if branch.has_weights and not branch.safetensors]
    if without:
        evidence = [
            item
            for branch in without
            for item in branch.weight_evidence(BIN) or map(branch.evidence, branch.other_weights)
        ]
        what = f"{shorten(without)}: the weights are not in safetensors files"
        yield suite.finding("no-safetensors", without, what, evidence)


def header_sizes(suite: Suite) -> Iterator[Finding]:
    """Safetensors files whose size contradicts their header; a file that several branches have is one finding."""
    holders: dict[str, list[tuple[Branch, str]]] = {}
    for branch in suite.branches:
        for path in branch.headers:
            holders.setdefault(digest(branch.files[path]), []).append((branch, path))
    for same in holders.values():
        branch, path = same[0]
        header, size = branch.headers[path], branch.files[path].size
        problems = list(header.problems)
        if header.end != size and header.tensors:
            problems.append(f"the header describes {header.end:,} bytes, but the file has {size:,}")
        if problems:
            branches = [branch for branch, _ in same]
            evidence = [branch.evidence(path, problems[0]) for branch, path in same]
            what = f"{shorten(branches)}: {path}: {problems[-1]}"
            yield suite.finding("size-mismatch", branches, what, evidence)


def index_sizes(suite: Suite) -> Iterator[Finding]:
    """Shards that the index names and that are missing, and shards whose bytes do not add up to the index's total."""
    for branch in suite.branches:
        for weights in branch.weights.values():
            if what := _contradicts_index(branch, weights):
                evidence = branch.weight_evidence(weights.format) or (branch.evidence(),)
                yield suite.finding("size-mismatch", [branch], f"{branch.name}: {what}", evidence)


def _contradicts_index(branch: Branch, weights: WeightSet) -> str:
    if weights.missing:
        return f"the index names {some(weights.missing)}, which {'is' if len(weights.missing) == 1 else 'are'} missing"
    if weights.index is None or weights.index.total_size is None:
        return ""
    total = weights.index.total_size
    if weights.format == SAFETENSORS:
        headers = [branch.headers[entry.path] for entry in weights.files]
        stored = sum(header.data_bytes for header in headers)
        names = {tensor.name for header in headers for tensor in header.tensors}
        wrong = stored != total and names == weights.index.files.keys()  # other tensors are reported as mixed shards
    else:
        stored = sum(entry.size for entry in weights.files)  # with what pickle adds
        wrong = stored < total
    return f"the index states {total:,} bytes of tensors, but the shards have {stored:,}" if wrong else ""


def short_pickles(suite: Suite) -> Iterator[Finding]:
    """``.bin`` files that are shorter than the same file on the other branches."""
    sizes: dict[str, list[tuple[Branch, TreeEntry]]] = {}
    for branch in suite.branches:
        weights = branch.weights.get(BIN)
        for entry in weights.files if weights else ():
            sizes.setdefault(entry.path, []).append((branch, entry))
    for path, same in sizes.items():
        usual = median(entry.size for _, entry in same)
        for branch, entry in same:
            if len(same) > 2 and entry.size < MIN_SIZE * usual:
                what = f"{branch.name}: {path} has {entry.size:,} bytes, but {usual:,.0f} on most branches"
                yield suite.finding("size-mismatch", [branch], what, [branch.evidence(path)])


def cross_repo(suites: Sequence[Suite]) -> Iterator[Finding]:
    """One finding for each set of repos that share whole models, and one for each that share only shards.

    Steps 0 and 1 of runs that differ in the order of their data alone are meant to be equal.
    """
    for kind in WEIGHT_FORMATS:
        models: dict[object, list[tuple[Suite, Branch]]] = {}
        shards: dict[object, list[tuple[Suite, Branch]]] = {}
        for suite in suites:
            for branch in suite.steps:
                weights = branch.weights.get(kind.name)
                if weights is None or not weights.files:
                    continue
                models.setdefault(weights.identity, []).append((suite, branch))
                for shard in set(weights.identity):
                    shards.setdefault(shard, []).append((suite, branch))
        whole = _by_repos(models)
        for repos, held in whole.items():
            same_data = sum(SAME_START in repo for repo in repos) < len(repos) - 1
            if same_data or not {branch.step for _, branch in held} <= FIRST_STEPS:
                yield _between_repos("duplicate-weights", repos, held, kind.name)
        for repos, held in _by_repos(shards).items():
            parts = [pair for pair in held if pair not in whole.get(repos, ())]
            if parts:
                yield _between_repos("mixed-shards", repos, parts, kind.name)


def _by_repos(
    holders: Mapping[object, list[tuple[Suite, Branch]]],
) -> dict[tuple[str, ...], list[tuple[Suite, Branch]]]:
    """Repos that share something -> their branches that do, each once."""
    found: dict[tuple[str, ...], dict[tuple[str, str], tuple[Suite, Branch]]] = {}
    for held in holders.values():
        repos = tuple(dict.fromkeys(suite.repo for suite, _ in held))
        if len(repos) > 1:
            found.setdefault(repos, {}).update({(suite.repo, branch.name): (suite, branch) for suite, branch in held})
    return {repos: list(held.values()) for repos, held in found.items()}


def _between_repos(
    kind: str, repos: Sequence[str], held: Sequence[tuple[Suite, Branch]], weight_format: str
) -> Finding:
    branches = [branch for _, branch in held]
    steps = steps_of(branches)
    shared = "the same weights" if kind == "duplicate-weights" else "some of the same shards"
    at = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps: {some(steps, 6)}"
    evidence = tuple(
        replace(item, repo=suite.repo) for suite, branch in held for item in branch.weight_evidence(weight_format)
    )
    what = f"{' and '.join(repos)} have {shared} at {at}"
    return Finding(kind, names_of(branches), steps, what, ", ".join(repos), evidence)
