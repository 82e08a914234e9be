"""The answer: which random state made the weights, how far that was proven, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.cards.sentences import drawn_before
from publish.explain.matching import Tally
from publish.neox.state import CPU
from publish.records.manifest import Explanation, SeededGenerator

EQUAL, DIFFERENT, ABSENT = "equal", "different", "absent"


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One drawn tensor on every rank. ``exact``: the generator is a CPU's, so only equal bits will do."""

    name: str
    ranks: tuple[Tally, ...]
    exact: bool

    @property
    def tally(self) -> Tally:
        """All ranks together."""
        return sum(self.ranks, Tally())

    @property
    def different(self) -> int:
        """Values that the recomputed ones do not explain."""
        return sum(map(self.different_in, self.ranks))

    def different_in(self, tally: Tally) -> int:
        """The same, of one rank's."""
        return tally.values - tally.equal if self.exact else tally.wrong

    def first_different(self, tally: Tally) -> int | None:
        """The index of the first of them in a rank's shard."""
        return tally.first_unequal if self.exact else tally.first_wrong

    @property
    def explained(self) -> bool:
        return self.different == 0

    @property
    def alike(self) -> bool:
        """Whether it is explained but for last bits."""
        return self.tally.wrong == 0


@dataclass(frozen=True)
class Answer:
    """What ``publish explain`` says. ``generator`` is None where nothing was reproduced."""

    where: str
    step: int | None
    outcome: str
    generator: SeededGenerator | None
    results: tuple[TensorResult, ...]
    tensors: int
    values: int
    stored_state: str
    reasons: tuple[str, ...]
    tensor_parallel: int = 1
    layout: str | None = None
    total: Tally = field(default_factory=Tally)

    @property
    def bit_equal(self) -> int:
        return self.total.equal

    @property
    def within_one_ulp(self) -> int:
        """Values that are equal or one unit in the last place apart."""
        return self.total.equal + self.total.one_apart

    @property
    def explanation(self) -> Explanation:
        """What a manifest keeps of it."""
        return Explanation(
            outcome=self.outcome,
            generator=self.generator,
            layout=self.layout,
            tensors=self.tensors,
            values=self.values,
            bit_equal=self.bit_equal,
            within_one_ulp=self.within_one_ulp,
            stored_state=self.stored_state,
        )

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish explain``; ``details`` has the tensors by name."""
        generator = self.generator
        return {
            "checkpoint": self.where,
            "step": self.step,
            "outcome": self.outcome,
            "seed": generator and generator.seed,
            "generator": generator and generator.kind,
            "generator_seeds": list(generator.rank_seeds) if generator else [],
            "preceding": self._preceding(),
            "threads": generator and generator.threads,
            "devices": list(generator.devices) if generator else [],
            "tensor_parallel": self.tensor_parallel,
            "tensors": self.tensors,
            "values": self.values,
            "bit_equal": self.bit_equal,
            "within_one_ulp": self.within_one_ulp,
            "stored_state": self.stored_state,
            "reasons": list(self.reasons),
            "details": [_detail(result) for result in self.results],
        }

    def _preceding(self) -> dict[str, Any] | None:
        if self.generator is None or self.generator.preceding is None:
            return None
        before = self.generator.preceding
        unit = "draws" if self.generator.kind == CPU else "offset"
        counts = {unit: before.position, "constructions": before.constructions}
        return {**counts, "tensors": list(before.tensors), "detail": drawn_before(self.explanation)}


def _detail(result: TensorResult) -> Mapping[str, Any]:
    tally = result.tally
    return {
        "name": result.name,
        "explained": result.explained,
        "values": tally.values,
        "bit_equal": tally.equal,
        "within_one_ulp": tally.equal + tally.one_apart,
        "different": result.different,
    }
