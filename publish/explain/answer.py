"""The answer: which random state made the weights, how much of them it explains, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.cards.sentences import drawn_before
from publish.explain.replay import TensorResult
from publish.explain.streams import Tally
from publish.neox.state import CPU
from publish.records.manifest import Explanation, RngState


@dataclass(frozen=True)
class Answer:
    """What ``publish explain`` says. ``rng_state`` is None if nothing was reproduced."""

    where: str
    step: int | None
    outcome: str
    rng_state: RngState | None
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
            rng_state=self.rng_state,
            layout=self.layout,
            tensors=self.tensors,
            values=self.values,
            bit_equal=self.bit_equal,
            within_one_ulp=self.within_one_ulp,
            stored_state=self.stored_state,
        )

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish explain``; ``details`` has the tensors by name."""
        state = self.rng_state
        return {
            "checkpoint": self.where,
            "step": self.step,
            "outcome": self.outcome,
            "seed": state and state.seed,
            "generator": state and state.generator,
            "generator_seeds": list(state.seeds) if state else [],
            "preceding": self._preceding(),
            "threads": state and state.threads,
            "devices": list(state.devices) if state else [],
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
        if self.rng_state is None or self.rng_state.preceding is None:
            return None
        before, unit = self.rng_state.preceding, "draws" if self.rng_state.generator == CPU else "offset"
        amounts = {unit: before.position, "constructions": before.constructions, "tensors": list(before.tensors)}
        return {**amounts, "detail": drawn_before(self.explanation)}


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
