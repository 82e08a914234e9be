"""What samples of the weights tell: models that are all but equal, and steps that do not descend from their neighbours.

Distances are of embedding rows, relative to their norm: 0 for equal ones, about 1.4 for unrelated ones. In two real
runs of 154 steps a step is at most 0.62 from the next one, and never further from the nearer of its neighbours than
0.87 times their distance from each other; the same step of another seed is at least 11 times as far as the next step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from publish.audit.deep import Sample
from publish.audit.duplicates import is_declared
from publish.audit.records import Evidence, Finding, digest
from publish.audit.weights import SAFETENSORS, weight_sets

FAR = 0.3  # below this distance nothing is a break, whatever the others' distances
BETWEEN, AT_AN_END = 1.3, 4.0  # times the distance of its neighbours from each other: more is a break
CLOSE, APART = 1e-3, 500  # near-duplicates: so small a distance, so many steps apart


def deep_findings(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Near-duplicates, within a suite and between suites, then breaks of descent."""
    yield from _equal(samples)
    lines: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        lines.setdefault((sample.suite.repo, sample.branch.series, sample.places), []).append(sample)
    for line in lines.values():
        line.sort(key=lambda sample: sample.branch.step)
        yield from _near(line)
        yield from _breaks(line)


def distance(left: Sample, right: Sample) -> float:
    """Of their matrices' rows: the norm of the difference over the geometric mean of the norms."""
    import numpy as np

    one, other = (each.values(matrices_only=True).astype(np.float64) for each in (left, right))
    with np.errstate(all="ignore"):  # infinite or no numbers: nothing is further or nearer than that
        norm = float(np.sqrt(np.linalg.norm(one) * np.linalg.norm(other)))
        difference = float(np.linalg.norm(one - other))
    return difference / norm if norm else difference


def _equal(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Samples with equal values whose files differ; equal files are told by their digests."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.places, sample.without_zero_sign), []).append(sample)
    for same in groups.values():
        alone = len({sample.suite.repo for sample in same}) == 1
        if len({_identity(sample) for sample in same}) < 2:
            continue
        if alone and is_declared(same[0].suite, [sample.branch for sample in same]):
            continue
        how = "equal" if len({sample.content for sample in same}) == 1 else "equal up to the sign of zero"
        yield _finding("duplicate-weights", same, f"{_names(same)}: the files differ, and {_count(same[0])} are {how}")


def _near(line: Sequence[Sample]) -> Iterator[Finding]:
    for left, right in itertools.pairwise(line):
        apart = right.branch.step - left.branch.step
        if apart >= APART and 0 < distance(left, right) < CLOSE:
            how = f"differ by {distance(left, right):.1e} of their norm, {apart:,} steps apart"
            yield _finding("duplicate-weights", [left, right], f"{_names([left, right])}: {_count(left)} {how}")


def _breaks(line: Sequence[Sample]) -> Iterator[Finding]:
    """Steps further from the two beside them than those are from each other."""
    for index, sample in enumerate(line if len(line) > 2 else ()):
        low = max(0, min(index - 1, len(line) - 3))
        one, other = (each for each in line[low : low + 3] if each is not sample)
        between = one.branch.step < sample.branch.step < other.branch.step
        nearest = min(distance(sample, one), distance(sample, other))
        usual = distance(one, other)
        if nearest > FAR and nearest > (BETWEEN if between else AT_AN_END) * usual:
            what = f"{sample.branch.name} is of another run than {one.branch.name} and {other.branch.name}: its "
            what += f"embeddings are {nearest:.2f} of their norm away, and those two {usual:.2f} from each other"
            yield _finding("not-as-recorded", [sample], what)


def _finding(kind: str, samples: Sequence[Sample], what: str) -> Finding:
    repos = ", ".join(dict.fromkeys(sample.suite.repo for sample in samples))
    evidence = tuple(
        Evidence(s.branch.name, s.branch.commit, entry.path, digest(entry), entry.size, repo=s.suite.repo)
        for s in samples
        for entry in weight_sets(s.branch)[SAFETENSORS].files
    )
    return Finding(kind, tuple(sorted({sample.branch.step for sample in samples})), what, evidence, repos)


def _identity(sample: Sample) -> tuple[str, ...]:
    return weight_sets(sample.branch)[SAFETENSORS].identity


def _count(sample: Sample) -> str:
    return f"all {sample.values().size:,} sampled values"


def _names(samples: Sequence[Sample]) -> str:
    several = len({sample.suite.repo for sample in samples}) > 1
    return ", ".join(f"{s.suite.repo}@{s.branch.name}" if several else s.branch.name for s in samples)
