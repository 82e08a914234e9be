"""The answer: which random state made the weights, how much of them it explains, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publish.explain.replay import TensorResult
from publish.explain.stored import RngState
from publish.explain.streams import Tally
from publish.neox.state import CPU

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not-reproduced"


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
        state = self.rng_state
        return {
            "checkpoint": self.where,
            "step": self.step,
            "outcome": self.outcome,
            "seed": state and state.seed,
            "generator": state and state.generator,
            "generator_seeds": list(state.seeds) if state else [],
            "preceding": state and _preceding(state),
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


def _preceding(state: RngState) -> dict[str, Any]:
    unit = "draws" if state.generator == CPU else "offset"
    return {unit: state.position, "detail": state.preceding}


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
