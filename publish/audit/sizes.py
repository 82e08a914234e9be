"""Weight files that are shorter or longer than they must be, and weights that are in no safetensors file."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from publish.audit.names import OTHER_WEIGHTS, has_weights
from publish.audit.records import Branch, Suite, digest, evidence_of, named, steps_of
from publish.audit.weights import BIN, SAFETENSORS, WeightSet, weight_sets
from publish.hub.reads import TreeEntry
from publish.records.findings import Finding

SHORT = 0.99  # of its siblings' median size: pickled files of one model differ by their names' padding alone


def header_sizes(suite: Suite) -> Iterator[Finding]:
    """Safetensors files that are not as long as their header says; equal files of several branches are one finding."""
    holders: dict[str, list[tuple[Branch, TreeEntry]]] = {}
    for branch in _all(suite):
        for path in branch.headers:
            holders.setdefault(digest(branch.files[path]), []).append((branch, branch.files[path]))
    for same in holders.values():
        branch, entry = same[0]
        header = branch.headers[entry.path]
        problems = list(header.problems)
        if header.end != entry.size and header.tensors:
            problems.append(f"its header accounts for {header.end:,} bytes and the file has {entry.size:,}")
        if problems:
            branches = [each for each, _ in same]
            evidence = tuple(evidence_of(each, file, problems[0]) for each, file in same)
            what = f"{named(branches)}: {entry.path}: {problems[-1]}"
            yield Finding("size-mismatch", steps_of(branches), what, evidence, suite.repo)


def index_sizes(suite: Suite) -> Iterator[Finding]:
    """Shards that the index names and that are not there, and shards that together are not what the index counts."""
    for branch in _all(suite):
        for weights in weight_sets(branch).values():
            what = _shortage(branch, weights)
            if what:
                evidence = tuple(evidence_of(branch, entry) for entry in weights.files) or (evidence_of(branch),)
                yield Finding("size-mismatch", steps_of([branch]), f"{branch.name}: {what}", evidence, suite.repo)


def _shortage(branch: Branch, weights: WeightSet) -> str:
    if weights.missing:
        return (
            f"the index names {', '.join(weights.missing)}, which {'is' if len(weights.missing) == 1 else 'are'} absent"
        )
    total = weights.index.total_size if weights.index else None
    if total is None:
        return ""
    if weights.format == SAFETENSORS:
        headers = [branch.headers[entry.path] for entry in weights.files]
        found = sum(header.data_bytes for header in headers)
        names = {tensor.name for header in headers for tensor in header.tensors}
        whole = weights.index is not None and names == weights.index.places.keys()  # else told as mixed shards
        return (
            f"the index counts {total:,} bytes of tensors, the shards have {found:,}"
            if whole and found != total
            else ""
        )
    stored = sum(entry.size for entry in weights.files)
    return f"the index counts {total:,} bytes of tensors, the files have {stored:,}" if stored < total else ""


def short_pickles(suite: Suite) -> Iterator[Finding]:
    """``.bin`` files that are shorter than the same file of the other branches."""
    sizes: dict[str, list[tuple[Branch, TreeEntry]]] = {}
    for branch in _all(suite):
        weights = weight_sets(branch).get(BIN)
        for entry in weights.files if weights else ():
            sizes.setdefault(entry.path, []).append((branch, entry))
    for path, same in sizes.items():
        usual = median(entry.size for _, entry in same)
        for branch, entry in same:
            if len(same) > 2 and entry.size < SHORT * usual:
                what = f"{branch.name}: {path} has {entry.size:,} bytes, and {usual:,.0f} in most branches"
                evidence = (evidence_of(branch, entry),)
                yield Finding("size-mismatch", steps_of([branch]), what, evidence, suite.repo)


def no_safetensors(suite: Suite) -> Iterator[Finding]:
    """Branches whose weights are in other files alone."""
    without = [each for each in _all(suite) if has_weights(each) and SAFETENSORS not in weight_sets(each)]
    if without:
        evidence = tuple(evidence_of(branch, entry) for branch in without for entry in _weights(branch))
        what = f"{named(without)}: weights, but none in safetensors"
        yield Finding("no-safetensors", steps_of(without), what, evidence, suite.repo)


def _weights(branch: Branch) -> tuple[TreeEntry, ...]:
    found = weight_sets(branch).get(BIN)
    return found.files if found else tuple(e for path, e in branch.files.items() if path.endswith(OTHER_WEIGHTS))


def _all(suite: Suite) -> list[Branch]:
    return [*suite.steps, *([suite.main] if suite.main else [])]
