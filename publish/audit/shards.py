"""Shards that belong to another model than their neighbours: shared with a branch whose others differ, or not as the
index says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publish.audit.records import Branch, Evidence, Finding, Suite, digest, named, steps_of
from publish.audit.weights import FORMATS, SAFETENSORS, WeightSet, weight_sets


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
                Evidence.of(branch, entry)
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
    return what, tuple(Evidence.of(branch, entry) for entry in weights.files if entry.path in (said, found))
