"""Samples of the weights, for ``--deep``: models that are almost equal, and steps that are not of the same run.

Distances are between embedding rows, relative to their norm: 0 for equal ones, about 1.4 for unrelated ones. In two
real runs of 154 steps a step is at most 0.62 from the next one, and never further from the nearer of its neighbours
than 0.87 times their distance from each other; the same step of another seed is at least 11 times as far as the next
step.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from publish.audit.configs import LAYER
from publish.audit.reader import Reader
from publish.audit.records import SAFETENSORS, Branch, Series, Suite, digest, names_of, steps_of
from publish.audit.weights import is_declared
from publish.formats.safetensors import TensorInfo
from publish.hub.reads import TreeEntry
from publish.records.findings import Finding

Floats = npt.NDArray[np.float32]

BLOCKS, ROWS = 4, 8  # rows are read of an embedding at this many places, so many at each
MAX_VECTOR = 1 << 16  # bytes of a vector that is read whole
MAX_GAP = 1 << 12  # bytes between two ranges that are read rather than requested separately
MIN_BREAK = 0.3  # no step that is nearer than this is of another run, whatever the distances of the others
BREAK_BETWEEN, BREAK_AT_END = 1.3, 4.0  # times the distance of its neighbours from each other
NEAR, MIN_STEPS = 1e-3, 500  # almost equal: less than this distance, at least so many steps apart
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_in|embed_out|embed_tokens|lm_head|wte)\.weight$")
_FLOATS = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one tensor in one file, from the file's start. ``matrix``: rows of a matrix rather than a vector."""

    tensor: str
    dtype: str
    offset: int
    length: int
    matrix: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """What was read of a step: ``spans`` and their bytes, in the same order for all models of one shape."""

    suite: Suite
    branch: Branch
    step: int
    spans: tuple[Span, ...] = field(repr=False)
    content: tuple[bytes, ...] = field(repr=False)

    def values(self, *, matrices_only: bool = False) -> Floats:
        """The sampled values as fp32, with the sign of zero."""
        pairs = zip(self.spans, self.content, strict=True)
        parts = [_floats(span, content) for span, content in pairs if span.matrix or not matrices_only]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @property
    def shape(self) -> str:
        """A digest of what was sampled: equal for samples that can be compared."""
        return hashlib.sha256(repr([(span.tensor, span.length) for span in self.spans]).encode()).hexdigest()

    @property
    def unsigned_zero_digest(self) -> str:
        """A digest of the values that does not tell -0 from +0."""
        with np.errstate(all="ignore"):
            return hashlib.sha256((self.values() + np.float32(0)).tobytes()).hexdigest()  # -0 + 0 is +0

    @property
    def files(self) -> tuple[str, ...]:
        """The digests of the whole weight files."""
        return self.branch.weights[SAFETENSORS].identity


def _floats(span: Span, content: bytes) -> Floats:
    if span.dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, "<f2" if span.dtype == "F16" else "<f4").astype(np.float32)


def branches_to_sample(suite: Suite, steps: Sequence[int]) -> list[Branch]:
    """The branches of these steps, and their neighbours on both sides (two where one side has none)."""
    chosen: set[str] = set()
    for series in dict.fromkeys(branch.series for branch in suite.steps):
        line = [branch for branch in suite.steps if branch.series == series]
        for index, branch in enumerate(line):
            if branch.step in steps:
                first = max(0, min(index - 1, len(line) - 3))
                chosen.update(names_of(line[first : first + 3]))
    return [branch for branch in suite.steps if branch.name in chosen]


def read_sample(reader: Reader, suite: Suite, branch: Branch) -> Sample | None:
    """The sample of a step; None where it has no complete safetensors files, or no matrix of floats.

    Raises:
        HubError: a range cannot be read.
    """
    weights = branch.safetensors
    layers, matrices = _sampled_layers(branch), _sampled_matrices(branch)
    if weights is None or weights.missing or branch.step is None:
        return None
    if not matrices:
        return None  # vectors alone are equal at the start of any two runs
    found: list[tuple[Span, bytes]] = []
    for entry in weights.files:
        header = branch.headers[entry.path]
        if header.end != entry.size:
            return None  # reported as a size mismatch; where its tensors are is unknown
        spans = [span for tensor in header.tensors for span in _spans(tensor, layers, matrices)]
        found.extend(_read_spans(reader, suite.repo, branch, entry, spans))
    found.sort(key=lambda pair: (pair[0].tensor, pair[0].offset))
    spans_in_order, content = tuple(span for span, _ in found), tuple(part for _, part in found)
    return Sample(suite, branch, branch.step, spans_in_order, content)


def _sampled_layers(branch: Branch) -> frozenset[int]:
    """The first, the middle and the last layer."""
    tensors = [tensor for header in branch.headers.values() for tensor in header.tensors]
    last = max((int(found[1]) for tensor in tensors if (found := LAYER.search(tensor.name))), default=0)
    return frozenset({0, last // 2, last})


def _sampled_matrices(branch: Branch) -> frozenset[str]:
    """The embeddings; the largest matrix of a model that names them differently."""
    tensors = [tensor for header in branch.headers.values() for tensor in header.tensors]
    matrices = [tensor for tensor in tensors if len(tensor.shape) == 2 and tensor.nbytes and tensor.dtype in _FLOATS]
    embeddings = [tensor for tensor in matrices if _EMBEDDING.search(tensor.name)]
    largest = sorted(matrices, key=lambda tensor: (-tensor.nbytes, tensor.name))[:1]
    return frozenset(tensor.name for tensor in embeddings or largest)


def _spans(tensor: TensorInfo, layers: frozenset[int], matrices: frozenset[str]) -> Iterator[Span]:
    layer = LAYER.search(tensor.name)
    is_vector = len(tensor.shape) == 1 and tensor.dtype in _FLOATS and 0 < tensor.nbytes <= MAX_VECTOR
    if is_vector and (layer is None or int(layer[1]) in layers):
        yield Span(tensor.name, tensor.dtype, tensor.offset, tensor.nbytes, matrix=False)
    if tensor.name in matrices:
        rows, row = tensor.shape[0], tensor.nbytes // tensor.shape[0]
        starts = {min(block * (rows // BLOCKS), max(0, rows - ROWS)) for block in range(BLOCKS)}
        for start in sorted(starts):
            count = min(ROWS, rows - start)
            yield Span(tensor.name, tensor.dtype, tensor.offset + start * row, count * row, matrix=True)


def _read_spans(
    reader: Reader, repo: str, branch: Branch, entry: TreeEntry, spans: Sequence[Span]
) -> Iterator[tuple[Span, bytes]]:
    """The bytes of ``spans``; those near each other in one request."""
    groups: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span.offset):
        if groups and span.offset - max(other.offset + other.length for other in groups[-1]) <= MAX_GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
    file = reader.file(repo, branch.commit, entry)
    for group in groups:
        begin, end = group[0].offset, max(span.offset + span.length for span in group)
        content = reader.weight_range(file, digest(entry), begin, end - begin)
        yield from ((span, content[span.offset - begin : span.offset - begin + span.length]) for span in group)


def deep_findings(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Equal and almost equal models, within a suite and between suites; then steps that are of another run."""
    yield from _equal_samples(samples)
    lines: dict[tuple[str, Series, str], list[Sample]] = {}
    for sample in samples:
        lines.setdefault((sample.suite.repo, sample.branch.series, sample.shape), []).append(sample)
    for line in lines.values():
        line.sort(key=lambda sample: sample.step)
        yield from _almost_equal(line)
        yield from _of_another_run(line)


def distance(left: Sample, right: Sample) -> float:
    """Between their matrices' rows: the norm of the difference over the geometric mean of the norms."""
    one, other = (sample.values(matrices_only=True).astype(np.float64) for sample in (left, right))
    with np.errstate(all="ignore"):  # infinities and NaN: no comparison with them is true
        norm = float(np.sqrt(np.linalg.norm(one) * np.linalg.norm(other)))
        difference = float(np.linalg.norm(one - other))
    return difference / norm if norm else difference


def _equal_samples(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Samples with equal values whose files differ; equal files are found by their digests."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.shape, sample.unsigned_zero_digest), []).append(sample)
    for same in groups.values():
        in_one_suite = len({sample.suite.repo for sample in same}) == 1
        if len({sample.files for sample in same}) < 2:
            continue
        if in_one_suite and is_declared(same[0].suite, [sample.branch for sample in same]):
            continue
        how = "equal" if len({sample.content for sample in same}) == 1 else "equal up to the sign of zero"
        what = f"{_shorten(same)}: the files differ, but all {same[0].values().size:,} sampled values are {how}"
        yield _finding("duplicate-weights", same, what)


def _almost_equal(line: Sequence[Sample]) -> Iterator[Finding]:
    for left, right in itertools.pairwise(line):
        steps = right.step - left.step
        if steps >= MIN_STEPS and 0 < (apart := distance(left, right)) < NEAR:
            what = f"{_shorten([left, right])} are {steps:,} steps apart, but the {left.values().size:,} sampled values"
            yield _finding("duplicate-weights", [left, right], f"{what} differ by only {apart:.1e} of their norm")


def _of_another_run(line: Sequence[Sample]) -> Iterator[Finding]:
    """Steps that are further from the two beside them than those are from each other."""
    for index, sample in enumerate(line if len(line) > 2 else ()):
        first = max(0, min(index - 1, len(line) - 3))
        one, other = (neighbour for neighbour in line[first : first + 3] if neighbour is not sample)
        limit = BREAK_BETWEEN if one.step < sample.step < other.step else BREAK_AT_END
        nearest = min(distance(sample, one), distance(sample, other))
        usual = distance(one, other)
        if nearest > MIN_BREAK and nearest > limit * usual:
            what = f"{sample.branch.name} is not of the same run as {one.branch.name} and {other.branch.name}: its "
            what += (
                f"embeddings differ from theirs by {nearest:.2f} of their norm, theirs from each other by {usual:.2f}"
            )
            yield _finding("not-as-recorded", [sample], what)


def _finding(kind: str, samples: Sequence[Sample], what: str) -> Finding:
    branches = [sample.branch for sample in samples]
    repos = ", ".join(dict.fromkeys(sample.suite.repo for sample in samples))
    evidence = tuple(
        replace(item, repo=sample.suite.repo)
        for sample in samples
        for item in sample.branch.weight_evidence(SAFETENSORS)
    )
    return Finding(kind, names_of(branches), steps_of(branches), what, repos, evidence)


def _shorten(samples: Sequence[Sample]) -> str:
    several = len({sample.suite.repo for sample in samples}) > 1
    names = (f"{s.suite.repo}@{s.branch.name}" if several else s.branch.name for s in samples)
    return ", ".join(names)
