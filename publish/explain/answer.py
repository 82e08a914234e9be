"""The answer: which random state made the weights, how far that was proven, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.explain.matching import Tally
from publish.neox.state import CPU

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not-reproduced"
EQUAL, DIFFERENT, ABSENT = "equal", "different", "absent"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where numbers come from: everything that makes them.

    ``seed`` is the run's, ``seeds`` those of the ranks' generators. ``position``: numbers drawn before (CPU) or the
    generator's offset (CUDA) when the first tensor was drawn, None where only a later state is known. ``threads``
    and ``devices``: of the GPU, None and the possible ones where no tensor tells. ``after`` is the offset that a
    checkpoint stores, of a GPU's generator.
    """

    generator: str
    seed: int | None
    seeds: tuple[int, ...]
    position: int | None = None
    preceding: str = ""
    threads: int | None = None
    devices: tuple[str, ...] = ()
    after: int | None = None


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
    """What ``publish explain`` says. ``origin`` is None where nothing was reproduced."""

    where: str
    step: int | None
    outcome: str
    origin: Origin | None
    results: tuple[TensorResult, ...]
    tensors: int
    values: int
    stored_state: str
    reasons: tuple[str, ...]
    tensor_parallel: int = 1
    total: Tally = field(default_factory=Tally)

    @property
    def bit_equal(self) -> int:
        return self.total.equal

    @property
    def within_one_ulp(self) -> int:
        """Values that are equal or one unit in the last place apart."""
        return self.total.equal + self.total.one_apart

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``; ``details`` has the tensors by name."""
        origin = self.origin
        return {
            "checkpoint": self.where,
            "step": self.step,
            "outcome": self.outcome,
            "seed": origin and origin.seed,
            "generator": origin and origin.generator,
            "generator_seeds": list(origin.seeds) if origin else [],
            "preceding": origin and _preceding(origin),
            "threads": origin and origin.threads,
            "devices": list(origin.devices) if origin else [],
            "tensor_parallel": self.tensor_parallel,
            "tensors": self.tensors,
            "values": self.values,
            "bit_equal": self.bit_equal,
            "within_one_ulp": self.within_one_ulp,
            "stored_state": self.stored_state,
            "reasons": list(self.reasons),
            "details": [_detail(result) for result in self.results],
        }


def _preceding(origin: Origin) -> dict[str, Any]:
    unit = "draws" if origin.generator == CPU else "offset"
    return {unit: origin.position, "detail": origin.preceding}


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
