"""The gates that every step passes before it is published, in the order in which they are worth asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publish.convert.recipes import ConversionPlan
from publish.convert.written import Written
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.verify.contents import bits, completeness, file_length, finite
from publish.verify.gate import PASSED, GateResult, skipped
from publish.verify.hf_forward import strict_load
from publish.verify.identity import identity
from publish.verify.logits import LOGITS, logits
from publish.verify.statistics import NotFinite
from publish.verify.validation import validation_logits

__all__ = [
    "Evidence",
    "bits",
    "completeness",
    "file_length",
    "finite",
    "first_gates",
    "identity",
    "logits",
    "strict_load",
    "validation_logits",
]


@dataclass(frozen=True)
class Evidence:
    """One converted step: where it came from, what was planned, and what was written.

    ``counts`` are those of `statistics.FiniteObserver`, ``vocabulary`` is the tokenizer's size; None where unknown.
    """

    checkpoint: RawCheckpoint
    config: NeoxConfig
    plan: ConversionPlan
    folder: Path
    written: Written
    step: int
    counts: Mapping[str, NotFinite] | None = None
    vocabulary: int | None = None


def first_gates(evidence: Evidence, *, compute_logits: bool = True) -> tuple[GateResult, ...]:
    """Every gate's result; none raises for a finding. Without ``compute_logits`` that gate is skipped, and says so."""
    folder, written = evidence.folder, evidence.written
    results = [
        identity(evidence.checkpoint, evidence.config, evidence.step),
        file_length(folder, written.files),
        completeness(evidence.checkpoint, evidence.plan, folder),
        finite(folder, evidence.counts),
        bits(folder, written.tensors),
    ]
    loads = strict_load(folder)
    results.append(loads)
    if not compute_logits:
        results.append(skipped(LOGITS, "not asked for"))
    elif loads.outcome != PASSED:
        results.append(skipped(LOGITS, "the model does not load"))
    else:
        results.append(logits(evidence.checkpoint, evidence.plan, folder, evidence.vocabulary))
        if (stored := evidence.checkpoint.state.validation_logits) is not None:
            results.append(validation_logits(evidence.checkpoint, evidence.plan, stored))
    return tuple(results)
