"""All gates of one converted step, in the order of what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from publish.convert.recipes import ConversionPlan
from publish.convert.written import TensorDigest
from publish.errors import GateError
from publish.mygates import gates
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.verify.gate import GateResult


def prove(
    step: int,
    checkpoint: RawCheckpoint,
    config: NeoxConfig,
    plan: ConversionPlan,
    folder: Path,
    digests: Sequence[TensorDigest],
    *,
    with_logits: bool,
    why_not: str = "not asked for",
) -> tuple[GateResult, ...]:
    """What every gate found. ``step`` below 0: the checkpoint's name claims none, and identity is skipped."""
    if step >= 0:
        first = gates.identity(step, checkpoint, config)
    else:
        first = gates.skipped("identity", "the location names no step")
    results = [first, gates.completeness(plan, checkpoint, folder), gates.lengths(folder)]
    results += gates.bits_and_values(digests, folder)
    results.append(gates.strict_load(folder))
    if not with_logits:
        results.append(gates.skipped("logits", why_not))
    elif gates.failures(results):
        results.append(gates.skipped("logits", "an earlier gate failed"))
    else:
        results.append(gates.logits(checkpoint, config.network, plan, folder))
    return tuple(results)


def refuse_failures(results: Sequence[GateResult], where: object) -> None:
    """Stop a step whose gates found something.

    Raises:
        GateError: names the gates and what they found.
    """
    if failed := gates.failures(results):
        found = "; ".join(f"{result.name}: {result.detail}" for result in failed)
        raise GateError(found, where, "the checkpoint is not what it claims; fetch it again or take it out of the run")
