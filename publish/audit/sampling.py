"""What samples of the weights tell: models that are all but equal, and steps that do not descend from their neighbours.

Distances are of embedding rows, relative to their norm: 0 for equal ones, about 1.4 for unrelated ones. In two real
runs of 154 steps a step is at most 0.62 from the next one, and never further from the nearer of its neighbours than
0.87 times their distance from each other; the same step of another seed is at least 11 times as far as the next step.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publish.audit.duplicates import is_declared
from publish.audit.reader import Reader
from publish.audit.records import Branch, Suite, digest
from publish.audit.weights import SAFETENSORS, weight_sets
from publish.formats.safetensors import HeaderTensor
from publish.hub.reads import TreeEntry
from publish.records.findings import Evidence, Finding

# A look into the weights at a few places: layer norms and biases whole, some rows of the embeddings, by range.


if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

BLOCKS, ROWS = 4, 8  # of an embedding: so many places, so many rows at each
LONGEST = 1 << 16  # bytes of a vector that is read whole
GAP = 1 << 12  # bytes between two ranges that are read rather than asked for twice
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_in|embed_out|embed_tokens|lm_head|wte)\.weight$")
_FLOATS = frozenset({"F16", "BF16", "F32"})


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one tensor in one file. ``matrix``: of a matrix's rows, which tell descent; vectors start equal."""

    tensor: str
    dtype: str
    offset: int
    length: int
    matrix: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """What was read of a branch: ``spans`` and their bytes, in one order for all branches of one shape."""

    suite: Suite
    branch: Branch
    spans: tuple[Span, ...] = field(repr=False)
    content: tuple[bytes, ...] = field(repr=False)

    @property
    def length(self) -> int:
        return sum(span.length for span in self.spans)

    def values(self, *, matrices_only: bool = False) -> Floats:
        """The sampled values as fp32, -0 as it is."""
        import numpy as np

        parts = [_floats(s, c) for s, c in zip(self.spans, self.content, strict=True) if s.matrix or not matrices_only]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @property
    def places(self) -> str:
        """What was sampled: equal for samples that can be compared."""
        return hashlib.sha256(repr([(span.tensor, span.length) for span in self.spans]).encode()).hexdigest()

    @property
    def without_zero_sign(self) -> str:
        """Equal for samples whose values are equal, +0 and -0 being the same."""
        import numpy as np

        with np.errstate(all="ignore"):
            return hashlib.sha256((self.values() + np.float32(0)).tobytes()).hexdigest()  # -0 + 0 is +0


def _floats(span: Span, content: bytes) -> Floats:
    import numpy as np

    if span.dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, "<f2" if span.dtype == "F16" else "<f4").astype(np.float32)


def chosen_branches(suite: Suite, steps: Sequence[int]) -> list[Branch]:
    """The branches of these steps, and their neighbours on both sides (two where one side has none)."""
    chosen: dict[str, Branch] = {}
    wanted = frozenset(steps)
    for series in dict.fromkeys(branch.series for branch in suite.steps):
        line = [branch for branch in suite.steps if branch.series == series]
        for index, branch in enumerate(line):
            if branch.step in wanted:
                low = max(0, min(index - 1, len(line) - 3))
                chosen.update({each.name: each for each in line[low : low + 3]})
    return [branch for branch in suite.steps if branch.name in chosen]


def read_sample(reader: Reader, suite: Suite, branch: Branch) -> Sample | None:
    """The branch's sample; None where it has no safetensors that can be read, or no matrix of numbers.

    Raises:
        HubError: a range cannot be read.
    """
    weights = weight_sets(branch).get(SAFETENSORS)
    if weights is None or weights.missing:
        return None
    found: list[tuple[Span, bytes]] = []
    layers, matrices = _layers(branch), _matrices(branch)
    if not matrices:
        return None  # vectors alone are equal at the start of any two runs
    for entry in weights.files:
        header = branch.headers[entry.path]
        if header.end != entry.size:
            return None  # told as a size mismatch; what is where is not known
        spans = [span for tensor in header.tensors for span in _spans(tensor, layers, matrices)]
        found.extend(_read(reader, suite.repo, branch, entry, spans))
    found.sort(key=lambda each: (each[0].tensor, each[0].offset))
    return Sample(suite, branch, tuple(span for span, _ in found), tuple(content for _, content in found))


def _layers(branch: Branch) -> frozenset[int]:
    """The first, the middle and the last layer."""
    numbers = {int(f[1]) for h in branch.headers.values() for t in h.tensors if (f := _LAYER.search(t.name))}
    last = max(numbers, default=0)
    return frozenset({0, last // 2, last})


def _matrices(branch: Branch) -> frozenset[str]:
    """The embeddings; in a model that names them otherwise, the largest matrix."""
    tensors = [tensor for header in branch.headers.values() for tensor in header.tensors]
    matrices = [each for each in tensors if len(each.shape) == 2 and each.nbytes and each.dtype in _FLOATS]
    named = [each for each in matrices if _EMBEDDING.search(each.name)]
    largest = sorted(matrices, key=lambda each: (-each.nbytes, each.name))[:1]
    return frozenset(each.name for each in named or largest)


def _spans(tensor: HeaderTensor, layers: frozenset[int], matrices: frozenset[str]) -> Iterator[Span]:
    layer = _LAYER.search(tensor.name)
    chosen = layer is None or int(layer[1]) in layers
    if len(tensor.shape) == 1 and chosen and tensor.dtype in _FLOATS and 0 < tensor.nbytes <= LONGEST:
        yield Span(tensor.name, tensor.dtype, tensor.offset, tensor.nbytes, matrix=False)
    if tensor.name in matrices:
        rows, row = tensor.shape[0], tensor.nbytes // tensor.shape[0]
        starts = {min(block * (rows // BLOCKS), max(0, rows - ROWS)) for block in range(BLOCKS)}
        for start in sorted(starts):
            count = min(ROWS, rows - start)
            yield Span(tensor.name, tensor.dtype, tensor.offset + start * row, count * row, matrix=True)


def _read(
    reader: Reader, repo: str, branch: Branch, entry: TreeEntry, spans: Sequence[Span]
) -> Iterator[tuple[Span, bytes]]:
    """The bytes of ``spans``, near ones in one request."""
    groups: list[list[Span]] = []
    for span in sorted(spans, key=lambda each: each.offset):
        if groups and span.offset - max(each.offset + each.length for each in groups[-1]) <= GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
    file = reader.file(repo, branch.commit, entry)
    for group in groups:
        begin, end = group[0].offset, max(span.offset + span.length for span in group)
        content = reader.weights(file, digest(entry), begin, end - begin)
        yield from ((span, content[span.offset - begin : span.offset - begin + span.length]) for span in group)


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
