"""The gates that every step passes before it is published, in the order in which they are worth asking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from publish.convert.recipes import ConversionPlan
from publish.convert.written import Written
from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.verify.contents import BITS, COMPLETENESS, FILE_LENGTH, FINITE, bits, completeness, file_length, finite
from publish.verify.gate import PASSED, GateResult, skipped
from publish.verify.hf_forward import STRICT_LOAD, strict_load
from publish.verify.identity import IDENTITY, identity
from publish.verify.logits import LOGITS, logits
from publish.verify.models import Models
from publish.verify.statistics import NotFinite
from publish.verify.validation import VALIDATION, validation_logits
from publish.verify.weightfile import WeightFolder

NOT_ASKED = "not asked for"

__all__ = [
    "GATES",
    "Evidence",
    "bits",
    "completeness",
    "file_gates",
    "file_length",
    "finite",
    "first_gates",
    "identity",
    "logits",
    "model_gates",
    "strict_load",
    "validation_logits",
]


@dataclass(frozen=True)
class Evidence:
    """One converted step: where it came from, what was planned, and what was written.

    ``counts`` are those of `statistics.FiniteObserver`, ``vocabulary`` is the tokenizer's size; None where unknown.
    ``models`` computes what needs torch or transformers.
    """

    checkpoint: RawCheckpoint
    config: NeoxConfig
    plan: ConversionPlan
    folder: Path
    written: Written
    step: int
    counts: Mapping[str, NotFinite] | None = None
    vocabulary: int | None = None
    models: Models = field(default_factory=Models)

    @cached_property
    def weights(self) -> Path | WeightFolder:
        """The folder with its headers read; one that cannot be opened is left to each gate, which says why."""
        try:
            return WeightFolder.open(self.folder)
        except GateError:
            return self.folder


_OF_FILES: Mapping[str, Callable[[Evidence], GateResult]] = {
    IDENTITY: lambda e: identity(e.checkpoint, e.config, e.step),
    FILE_LENGTH: lambda e: file_length(e.weights, e.written.files),
    COMPLETENESS: lambda e: completeness(e.checkpoint, e.plan, e.weights),
    FINITE: lambda e: finite(e.weights, e.counts),
    BITS: lambda e: bits(e.weights, e.written.tensors),
}
GATES = (*_OF_FILES, STRICT_LOAD, LOGITS, VALIDATION)  # every name, in the order in which they are asked


def first_gates(
    evidence: Evidence, *, compute_logits: bool = True, only: Collection[str] = GATES
) -> tuple[GateResult, ...]:
    """The result of every gate in ``only``; none raises for a finding. One that was not asked for says so."""
    return (*file_gates(evidence, only), *model_gates(evidence, compute_logits=compute_logits, only=only))


def file_gates(evidence: Evidence, only: Collection[str] = GATES) -> tuple[GateResult, ...]:
    """The gates that need neither torch nor transformers."""
    return tuple(gate(evidence) if name in only else skipped(name, NOT_ASKED) for name, gate in _OF_FILES.items())


def model_gates(evidence: Evidence, *, compute_logits: bool, only: Collection[str] = GATES) -> tuple[GateResult, ...]:
    """The gates that need a model.

    Without ``compute_logits`` the gate of logits is skipped too. Logits need a model that loads: that gate is then
    asked as well, and its result left out where nobody wanted it.
    """
    wanted = {LOGITS, VALIDATION} & set(only if compute_logits else ())
    loads = strict_load(evidence.weights, evidence.models) if wanted or STRICT_LOAD in only else None
    shown = loads if loads and STRICT_LOAD in only else skipped(STRICT_LOAD, NOT_ASKED)
    return (shown, *_of_logits(evidence, loads, wanted))


def _of_logits(evidence: Evidence, loads: GateResult | None, wanted: Collection[str]) -> Iterator[GateResult]:
    if not wanted or loads is None:
        yield skipped(LOGITS, NOT_ASKED)
        return
    if loads.outcome != PASSED:
        yield skipped(LOGITS, "the model does not load")
        return
    checkpoint, plan, compute = evidence.checkpoint, evidence.plan, evidence.models.compute
    if LOGITS in wanted:
        yield compute(logits, checkpoint, plan, evidence.folder, evidence.vocabulary)
    else:
        yield skipped(LOGITS, NOT_ASKED)
    if VALIDATION in wanted and (stored := checkpoint.state.validation_logits) is not None:
        yield compute(validation_logits, checkpoint, plan, stored)
