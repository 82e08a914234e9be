"""Branches that hold each other's weights, and a `main` that is not the last step. By digests alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from publish.audit.records import Branch, Suite, digest, evidence_of, named, steps_of
from publish.audit.weights import FORMATS, SAFETENSORS, WeightSet, weight_sets
from publish.records.findings import Evidence, Finding
from publish.text import some

# The learning rate is 0 at GPT-NeoX's first iteration, so step 1 equals step 0 in every suite trained before May 2026
# (pythia#83, gpt-neox#1373).
FIRST_STEPS = frozenset({0, 1})


def duplicate_weights(suite: Suite) -> Iterator[Finding]:
    """One finding for each set of steps whose weights are equal, in either format."""
    told: set[tuple[str, ...]] = set()
    for form in FORMATS:
        for same in equal_sets(suite.steps, form.name):
            names = tuple(branch.name for branch in same)
            if names in told or is_declared(suite, same):
                continue
            told.add(names)
            yield Finding(
                "duplicate-weights",
                steps_of(same),
                f"{named(same)} hold the same weights{_main_too(suite, same, form.name)}",
                tuple(evidence_of(branch, entry) for branch in same for entry in weight_sets(branch)[form.name].files),
                suite.repo,
            )


def equal_sets(branches: Sequence[Branch], form: str) -> list[list[Branch]]:
    """Two or more branches each, whose weight files of this format have the same digests."""
    groups: dict[tuple[str, ...], list[Branch]] = {}
    for branch in branches:
        weights = weight_sets(branch).get(form)
        if weights and weights.files:
            groups.setdefault(weights.identity, []).append(branch)
    return [group for group in groups.values() if len(group) > 1]


def is_declared(suite: Suite, same: Sequence[Branch]) -> bool:
    """Whether they are meant to be equal: the release or the manifest says so.

    Where there is no release file to say otherwise, steps 0 and 1 may be equal: see :data:`FIRST_STEPS`. So may the
    first steps of several series and the one step that they started from.
    """
    steps = frozenset(branch.step for branch in same)
    if len({branch.series for branch in same}) > 1:  # a later stage starts from what an earlier one ended with
        return len([branch for branch in same if branch.step != 0]) <= 1
    return any(steps <= equal for equal in suite.declared) or (suite.release is None and steps == FIRST_STEPS)


def _main_too(suite: Suite, same: Sequence[Branch], form: str) -> str:
    mine = weight_sets(suite.main).get(form) if suite.main else None
    return "; main holds them too" if mine and mine.identity == weight_sets(same[0])[form].identity else ""


def main_not_final(suite: Suite) -> Iterator[Finding]:
    """`main` holds other weights than the last step, or none."""
    main, final = suite.main, suite.final
    if main is None:
        yield Finding("main-not-final", (), "there is no branch main", repo=suite.repo)
        return
    mine, final = weight_sets(main), suite.final
    holds = _same_as(suite, main)
    if (holds in suite.finals and mine) or (final and not weight_sets(final)):
        return  # a final step without weights is told as such
    if final is None and holds is None and mine:
        return  # the last step is missing, which is told as such, or several series end and main may be made of them
    last = final.name if final else "the last step"
    if not mine:
        what = "main holds no weights"
    elif final and not mine.keys() & weight_sets(final).keys():
        what = f"main and {last} have no weight file of the same format"
    else:
        what = f"main holds other weights than {last}" + (f": those of {holds.name}" if holds else "")
    sides = [branch for branch in (main, final) if branch]
    evidence = tuple(evidence_of(branch, e) for branch in sides for w in weight_sets(branch).values() for e in w.files)
    evidence = evidence or (evidence_of(main),)
    yield Finding("main-not-final", steps_of([final] if final else []), what, evidence, suite.repo)


def _same_as(suite: Suite, main: Branch) -> Branch | None:
    """The step that holds what `main` holds: a last one before others."""
    mine = {form: weights.identity for form, weights in weight_sets(main).items()}
    for branch in (*suite.finals, *reversed(suite.steps)):
        if any(mine.get(form) == weights.identity for form, weights in weight_sets(branch).items()):
            return branch
    return None


# Shards that belong to another model than their neighbours: shared with a branch whose others differ, or not as the
# index says.


def shared_shards(suite: Suite) -> Iterator[Finding]:
    """Steps that share some of their shards, and not all.

    Where the last step or `main` is among them, it is taken to be right: branches started from it. Else nothing tells
    which one is right, and all are named.
    """
    told: set[tuple[str, ...]] = set()
    branches = [*suite.steps, *([suite.main] if suite.main else [])]
    for form in FORMATS:
        sets = {branch.name: found for branch in branches if (found := weight_sets(branch).get(form.name))}
        for names, digests in _sharing(sets).items():
            sharing = [branch for branch in branches if branch.name in names]
            owners = [branch for branch in sharing if branch is suite.final or branch is suite.main]
            wrong = [branch for branch in sharing if branch not in owners] or sharing
            concerned = tuple(branch.name for branch in wrong)
            if concerned in told:
                continue
            told.add(concerned)
            shards = {entry.path for name in names for entry in sets[name].files if digest(entry) in digests}
            what = f"{named(wrong)} {'hold' if len(wrong) > 1 else 'holds'} {', '.join(sorted(shards))} of "
            what += f"{named(owners)}" if owners and wrong is not sharing else "each other"
            what += ", and other shards of their own" if len(wrong) > 1 else ", and other shards of its own"
            evidence = tuple(
                evidence_of(branch, entry)
                for branch in [*wrong, *(owner for owner in owners if owner not in wrong)]
                for entry in sets[branch.name].files
                if digest(entry) in digests
            )
            yield Finding("mixed-shards", steps_of(wrong), what, evidence, suite.repo)


def _sharing(sets: Mapping[str, WeightSet]) -> dict[tuple[str, ...], set[str]]:
    """Branches that share some shards and not all -> the digests of these."""
    holders: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for name, weights in sets.items():
        for each in set(weights.identity):
            holders.setdefault(each, {}).setdefault(weights.identity, []).append(name)
    sharing: dict[tuple[str, ...], set[str]] = {}
    for each, models in holders.items():
        if len(models) > 1:
            names = tuple(sorted(name for same in models.values() for name in same))
            sharing.setdefault(names, set()).add(each)
    return sharing


def shards_against_index(suite: Suite) -> Iterator[Finding]:
    """Shards whose headers have other tensors than the index says."""
    for branch in suite.steps:
        weights = weight_sets(branch).get(SAFETENSORS)
        if weights is None or weights.index is None or weights.missing:
            continue
        places = {
            tensor.name: entry.path
            for entry in weights.files
            if entry.path in branch.headers
            for tensor in branch.headers[entry.path].tensors
        }
        cut = any(not branch.headers[entry.path].tensors for entry in weights.files if entry.path in branch.headers)
        wrong = sorted(name for name, path in weights.index.places.items() if places.get(name) != path)
        surplus = sorted(places.keys() - weights.index.places.keys())
        if cut or not (wrong or surplus):
            continue
        yield Finding(
            "mixed-shards", (branch.step,), *_disagreement(branch, weights, places, wrong, surplus), suite.repo
        )


def _disagreement(
    branch: Branch, weights: WeightSet, places: Mapping[str, str], wrong: list[str], surplus: list[str]
) -> tuple[str, tuple[Evidence, ...]]:
    assert weights.index is not None
    name = (wrong or surplus)[0]
    said, found = weights.index.places.get(name, "no file"), places.get(name, "no file")
    count = len(wrong) + len(surplus)
    what = f"{branch.name}: the index and the shards disagree on {count} tensors: {name} is in {found}, not {said}"
    return what, tuple(evidence_of(branch, entry) for entry in weights.files if entry.path in (said, found))


# Several suites at once: models that should differ and share weights, seeds that are each other's copies.


_SAME_START = "data-seed"  # runs of another data order start from the same weights (pythia-160m-data-seed1..3)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A branch of a repo that holds something."""

    repo: str
    branch: Branch

    @property
    def key(self) -> tuple[str, str]:
        return self.repo, self.branch.name


def shared_between(suites: Sequence[Suite]) -> Iterator[Finding]:
    """One finding for each set of repos that share whole models, and one for each that share shards only.

    Steps 0 and 1 of runs that differ in the order of their data alone are meant to be equal.
    """
    for form in FORMATS:
        models: dict[object, list[Held]] = {}
        shards: dict[object, list[Held]] = {}
        for suite in suites:
            for branch in suite.steps:
                weights = weight_sets(branch).get(form.name)
                if weights is None or not weights.files:
                    continue
                models.setdefault(weights.identity, []).append(Held(suite.repo, branch))
                for each in set(weights.identity):
                    shards.setdefault(each, []).append(Held(suite.repo, branch))
        whole = _by_repos(models)
        for repos, held in whole.items():
            if not _same_start(repos, held):
                yield _finding("duplicate-weights", repos, held, form.name)
        for repos, held in _by_repos(shards).items():
            parts = [each for each in held if each.key not in {other.key for other in whole.get(repos, ())}]
            if parts:
                yield _finding("mixed-shards", repos, parts, form.name)


def _by_repos(holders: Mapping[object, list[Held]]) -> dict[tuple[str, ...], list[Held]]:
    """Repos that share something -> their branches that do, each once."""
    found: dict[tuple[str, ...], dict[tuple[str, str], Held]] = {}
    for held in holders.values():
        repos = tuple(dict.fromkeys(each.repo for each in held))
        if len(repos) > 1:
            found.setdefault(repos, {}).update({each.key: each for each in held})
    return {repos: list(held.values()) for repos, held in found.items()}


def _same_start(repos: tuple[str, ...], held: Sequence[Held]) -> bool:
    steps = {each.branch.step for each in held}
    return steps <= FIRST_STEPS and sum(_SAME_START in repo for repo in repos) >= len(repos) - 1


def _finding(kind: str, repos: tuple[str, ...], held: Sequence[Held], form: str) -> Finding:
    steps = tuple(sorted({each.branch.step for each in held}))
    shared = "weights" if kind == "duplicate-weights" else "some shards"
    evidence = tuple(
        replace(evidence_of(each.branch, entry), repo=each.repo)
        for each in held
        for entry in weight_sets(each.branch)[form].files
    )
    return Finding(
        kind, steps, f"{' and '.join(repos)} share {shared} at step {some(steps, 6)}", evidence, ", ".join(repos)
    )
