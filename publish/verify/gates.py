"""The gates that every step passes before it is published, in the order in which they are worth asking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from publish.convert.recipes import ConversionPlan
from publish.convert.written import Written
from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.verify.contents import BITS, COMPLETENESS, FILE_LENGTH, FINITE, bits, completeness, file_length, finite
from publish.verify.gate import PASSED, SKIPPED, GateResult, skipped
from publish.verify.hf_forward import STRICT_LOAD, strict_load
from publish.verify.identity import IDENTITY, identity
from publish.verify.logits import LOGITS, logits
from publish.verify.statistics import NotFinite
from publish.verify.validation import VALIDATION, validation_logits
from publish.verify.weightfile import WeightFolder

NOT_ASKED = "not asked for"

__all__ = [
    "GATES",
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


_WITHOUT_MODEL: Mapping[str, Callable[[Evidence, Path | WeightFolder], GateResult]] = {
    IDENTITY: lambda e, _: identity(e.checkpoint, e.config, e.step),
    FILE_LENGTH: lambda e, folder: file_length(folder, e.written.files),
    COMPLETENESS: lambda e, folder: completeness(e.checkpoint, e.plan, folder),
    FINITE: lambda e, folder: finite(folder, e.counts),
    BITS: lambda e, folder: bits(folder, e.written.tensors),
    STRICT_LOAD: lambda _, folder: strict_load(folder),
}
GATES = (*_WITHOUT_MODEL, LOGITS, VALIDATION)  # every name, in the order in which they are asked


def first_gates(
    evidence: Evidence, *, compute_logits: bool = True, only: Collection[str] = GATES
) -> tuple[GateResult, ...]:
    """The result of every gate in ``only``; none raises for a finding. One that was not asked for says so.

    Without ``compute_logits`` the gate of logits is skipped too. Logits need a model that loads: that gate is then
    asked as well, and its result left out where nobody wanted it.
    """
    folder = _opened_once(evidence.folder)
    results = {name: gate(evidence, folder) for name, gate in _WITHOUT_MODEL.items() if name in only}
    for name in _WITHOUT_MODEL:
        results.setdefault(name, skipped(name, NOT_ASKED))
    ordered = [results[name] for name in _WITHOUT_MODEL]
    return (*ordered, *_of_logits(evidence, results[STRICT_LOAD], only if compute_logits else ()))


def _opened_once(folder: Path) -> Path | WeightFolder:
    """The folder with its headers read; one that cannot be opened is left to each gate, which says why."""
    try:
        return WeightFolder.open(folder)
    except GateError:
        return folder


def _of_logits(evidence: Evidence, loads: GateResult, only: Collection[str]) -> Iterator[GateResult]:
    if not {LOGITS, VALIDATION} & set(only):
        yield skipped(LOGITS, NOT_ASKED)
        return
    if loads.outcome == SKIPPED:
        loads = strict_load(evidence.folder)
    if loads.outcome != PASSED:
        yield skipped(LOGITS, "the model does not load")
        return
    if LOGITS in only:
        yield logits(evidence.checkpoint, evidence.plan, evidence.folder, evidence.vocabulary)
    else:
        yield skipped(LOGITS, NOT_ASKED)
    if VALIDATION in only and (stored := evidence.checkpoint.state.validation_logits) is not None:
        yield validation_logits(evidence.checkpoint, evidence.plan, stored)
