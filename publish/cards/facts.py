"""Everything a card states, gathered before it is written.

What is not known is None or empty, and its line is left out. Every record is plain data (texts, numbers, tuples,
records), so that ``dataclasses.asdict`` gives JSON and the reader of ``publish.json`` gives the record back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publish.cards.details import Fact, Sizes, details_of
from publish.cards.run_config import ConfigFacts
from publish.errors import CardError
from publish.records.files import FileRecord
from publish.records.gates import Gate
from publish.release_file import CardText as Text

if TYPE_CHECKING:
    from publish.explain.answer import Answer
    from publish.explain.stored import RngState


# What a card states of the random state that made the initial weights, where every value was reproduced.


_SOURCE = "recomputed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation in a sentence, and its figures; plain data, as all that a card states."""

    summary: str
    rows: tuple[Fact, ...]


def explanation(answer: Answer) -> Explanation | None:
    """What to state of ``answer``; None unless all of it was reproduced."""
    from publish.explain.answer import REPRODUCED
    from publish.neox.state import CPU

    origin = answer.rng_state
    if answer.outcome != REPRODUCED or origin is None:
        return None
    device = "a CPU" if origin.generator == CPU else "a GPU"
    summary = (
        f"The initial weights were recomputed from seed {origin.seed}: they are what torch's generator on {device} "
        f"draws in GPT-NeoX's order of construction, value by value."
    )
    return Explanation(summary, tuple(_rows(answer, origin)))


def _rows(answer: Answer, origin: RngState) -> Iterator[Fact]:
    yield Fact("Random tensors", f"{answer.tensors:,}, all reproduced", _SOURCE)
    yield Fact("Values", f"{answer.bit_equal:,} of {answer.values:,} equal in every bit", _SOURCE)
    if answer.within_one_ulp != answer.bit_equal:
        yield Fact("Within one unit in the last place", f"{answer.within_one_ulp:,}", _SOURCE)
    seeds = ", ".join(map(str, origin.seeds))
    yield Fact("Generator", f"{origin.generator}, seeded with {seeds}", _SOURCE)
    yield Fact("Drawn before", origin.preceding, _SOURCE)
    if origin.devices:
        threads = f"{origin.threads:,} threads" if origin.threads is not None else "any of many"
        yield Fact("GPU", f"{' or '.join(origin.devices)} ({threads})", _SOURCE)
    yield Fact("Generator's stored state afterwards", answer.stored_state, "checkpoint")


# What all cards of one run share: its config and its sizes. Recorded on ``main``, so that a card needs no source.


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run as configured and as measured; ``deviations`` are what the conversion had to state."""

    config: ConfigFacts
    sizes: Sizes
    deviations: tuple[str, ...] = ()

    def details(self, last_step: int) -> tuple[Fact, ...]:
        """The details table of a run that ends at ``last_step``."""
        return details_of(self.config, self.sizes, last_step=last_step)


HUB = "https://huggingface.co"
_FINGERPRINT = "index:"  # how publish.source.files.fingerprint begins


def common_kind(sources: Iterable[str | None]) -> str | None:
    """Whether all of ``sources`` are commits, or all fingerprints of a folder's files; None where neither."""
    kinds = {source and ("fingerprint" if source.startswith(_FINGERPRINT) else "commit") for source in sources}
    return kinds.pop() or None if len(kinds) == 1 else None


@dataclass(frozen=True, slots=True)
class StepLine:
    """One line of the table of checkpoints."""

    step: int
    branch: str
    tokens: int | None
    weights: str  # sha256 of the first weight file
    source_commit: str | None  # a commit, or for a folder ``index:`` and the fingerprint of its files


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where the release departs from the checkpoint's own config: what, why, and the effect as measured."""

    what: str
    because: str
    effect: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture in the repo; ``alt`` says in words what it shows."""

    alt: str
    path: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models compared: the verdict in a sentence, the reasons for it, the figures as a table."""

    title: str
    verdict: str
    reasons: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plots: tuple[Plot, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                what = f"a row of {len(row)} cells under {len(self.columns)} columns: {', '.join(row)}"
                raise CardError(what, f"the comparison {self.title!r}", "give every row one cell a column")


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step's card."""

    repo: str
    branch: str
    step: int
    steps: tuple[int, ...]
    text: Text
    details: tuple[Fact, ...]
    training: tuple[Fact, ...]
    tokens: int | None
    has_tokenizer: bool
    files: tuple[FileRecord, ...]
    gates: tuple[Gate, ...]
    source: str
    source_commit: str | None
    source_files: tuple[str, ...]
    converter: str
    deviations: tuple[str, ...] = ()
    overrides: tuple[Deviation, ...] = ()
    expected: tuple[str, ...] = ()
    explanation: Explanation | None = None
    comparisons: tuple[Comparison, ...] = ()
    hub: str = HUB

    def __post_init__(self) -> None:
        if self.step not in self.steps:
            raise CardError(f"step {self.step} is none of the release's", self.branch, "give the release's steps")

    @property
    def source_kind(self) -> str | None:
        """What ``source_commit`` is: a "commit", or a folder's "fingerprint"; None where there is none."""
        return common_kind([self.source_commit])

    @property
    def previous(self) -> int | None:
        """The step before this one in the release."""
        return max((step for step in self.steps if step < self.step), default=None)

    @property
    def following(self) -> int | None:
        """The step after this one in the release."""
        return min((step for step in self.steps if step > self.step), default=None)

    @property
    def place(self) -> int:
        """Its number among the release's steps, from 1."""
        return self.steps.index(self.step) + 1

    @property
    def last(self) -> int:
        """The last step of the release."""
        return self.steps[-1]

    @property
    def fraction(self) -> float:
        """How much of the run lies behind it, from 0 to 1."""
        return self.step / self.last if self.last else 1.0


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """The suite's card, on ``main``."""

    repo: str
    text: Text
    details: tuple[Fact, ...]
    lines: tuple[StepLine, ...]
    has_tokenizer: bool
    gates: tuple[Gate, ...]
    source: str
    converter: str
    expected: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    overrides: tuple[Deviation, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    plots: tuple[Plot, ...] = ()
    explanation: Explanation | None = None
    hub: str = HUB

    def __post_init__(self) -> None:
        if not self.lines:
            raise CardError("no checkpoint to write of", self.repo, "publish a step first")

    @property
    def first(self) -> StepLine:
        """The earliest step."""
        return self.lines[0]

    @property
    def final(self) -> StepLine:
        """The step that ``main`` holds."""
        return self.lines[-1]

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps, in order."""
        return tuple(line.step for line in self.lines)

    def detail(self, name: str) -> str | None:
        """The value of a row of the details table; None where there is no such row."""
        return next((row.value for row in self.details if row.name == name), None)

    @property
    def has_tokens(self) -> bool:
        """Whether it is known of every step how many tokens it has seen."""
        return all(line.tokens is not None for line in self.lines)

    @property
    def source_kind(self) -> str | None:
        """What tells the steps' sources apart: "commit", a folder's "fingerprint", or None where unknown."""
        return common_kind(line.source_commit for line in self.lines)
