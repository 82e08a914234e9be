"""Several suites at once: models that should differ and share weights, seeds that are each other's copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from publish.audit.duplicates import FIRST_STEPS
from publish.audit.records import Branch, Evidence, Finding, Suite
from publish.audit.weights import FORMATS, weight_sets

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
    shown = ", ".join(map(str, steps[:6])) + (f" and {len(steps) - 6} more" if len(steps) > 6 else "")
    shared = "weights" if kind == "duplicate-weights" else "some shards"
    evidence = tuple(
        replace(Evidence.of(each.branch, entry), repo=each.repo)
        for each in held
        for entry in weight_sets(each.branch)[form].files
    )
    return Finding(kind, steps, f"{' and '.join(repos)} share {shared} at step {shown}", evidence, ", ".join(repos))
