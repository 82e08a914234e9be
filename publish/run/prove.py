"""Which gates a converted step is asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from publish.verify.gate import SKIPPED, GateResult, skipped
from publish.verify.gates import GATES, Evidence, first_gates, model_gates


def prove(
    evidence: Evidence, *, with_logits: bool, why_not: str, only: Collection[str] = GATES
) -> tuple[GateResult, ...]:
    """What every gate in ``only`` found. A step below 0 means that the location names none: identity is skipped.

    ``why_not`` is what the logits gate says when it is skipped.
    """
    named = evidence.step >= 0
    results = first_gates(
        evidence if named else replace(evidence, step=evidence.checkpoint.state.iteration or 0),
        compute_logits=with_logits,
        only=only,
    )
    return tuple(_said(result, named, with_logits, why_not) for result in results)


def prove_model(evidence: Evidence, *, with_logits: bool, why_not: str) -> tuple[GateResult, ...]:
    """What the gates that need a model found of a step that `gates.file_gates` have looked at."""
    results = model_gates(evidence, compute_logits=with_logits)
    return tuple(_said(result, True, with_logits, why_not) for result in results)


def _said(result: GateResult, named: bool, with_logits: bool, why_not: str) -> GateResult:
    if result.name == "identity" and not named:
        return skipped("identity", "the location names no step")
    if result.name == "logits" and result.outcome == SKIPPED and not with_logits:
        return skipped("logits", why_not)
    return result
