"""The gates that every step passes before it is published, in the order in which they are worth asking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from publish.convert.plan import ConversionPlan
from publish.convert.writer import Written
from publish.errors import GateError
from publish.formats.safetensors import WeightFolder
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.records.gates import PASSED, SKIPPED, Gate, failed, passed, skipped
from publish.verify.contents import (
    BITS,
    COMPLETENESS,
    FILE_LENGTH,
    FINITE,
    NotFinite,
    bits,
    completeness,
    file_length,
    finite,
)
from publish.verify.hf_model import STRICT_LOAD, Models, strict_load
from publish.verify.logits import LOGITS, VALIDATION, logits, validation_logits

# Is the checkpoint the step that it is taken for, and is its config its own.


IDENTITY = "identity"


def identity(checkpoint: RawCheckpoint, config: NeoxConfig, step: int) -> Gate:
    """The checkpoint's own ``iteration`` is ``step``, and its own ``args`` are the config's; skipped if it has none.

    GPT-NeoX keeps both in the first ``mp_rank`` file (``megatron/checkpointing.py``), which a pipeline checkpoint can
    be converted without.
    """
    iteration = checkpoint.state.iteration
    pairs = list(_pairs(checkpoint, config))
    figures = {"step": step, "args_compared": len(pairs)}
    wrong = [
        f"{name} is {theirs!r} in the checkpoint and {ours!r} in the config"
        for name, ours, theirs in pairs
        if ours != theirs
    ]
    if iteration is not None and iteration != step:
        wrong.insert(0, f"the checkpoint says it is iteration {iteration:,}, not {step:,}")
    if iteration is not None:
        figures["iteration"] = iteration
    if wrong:
        return failed(IDENTITY, "; ".join(wrong), **figures)
    if iteration is None:
        silent = "it has no mp_rank file" if not checkpoint.state.args else "its mp_rank file states none"
        return skipped(IDENTITY, f"the checkpoint does not say its iteration: {silent}", **figures)
    return passed(IDENTITY, f"iteration {iteration:,}; {len(pairs)} sizes equal the config's", **figures)


def _pairs(checkpoint: RawCheckpoint, config: NeoxConfig) -> Iterator[tuple[str, Any, Any]]:
    """(name, the config's value, the checkpoint's value) where the checkpoint states one."""
    network, args, tensors = config.network, checkpoint.state.args, checkpoint.ranks[0]
    stated = {
        "num_layers": network.layers,
        "hidden_size": network.hidden,
        "num_attention_heads": network.heads,
        "max_position_embeddings": network.context,
        "model_parallel_size": checkpoint.tensor_parallel,
    }
    for name, ours in stated.items():
        if args.get(name) is not None:
            yield name, ours, args[name]
    if args.get("padded_vocab_size") is not None and "embedding.weight" in tensors:
        rows = tensors["embedding.weight"].shape[0] * checkpoint.tensor_parallel
        yield "padded_vocab_size (rows of the embedding)", rows, args["padded_vocab_size"]


NOT_ASKED = "not asked for"
NO_STEP = "the location names no step"


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
    step: int | None
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


_OF_FILES: Mapping[str, Callable[[Evidence], Gate]] = {
    IDENTITY: lambda e: skipped(IDENTITY, NO_STEP) if e.step is None else identity(e.checkpoint, e.config, e.step),
    FILE_LENGTH: lambda e: file_length(e.weights, e.written.files),
    COMPLETENESS: lambda e: completeness(e.checkpoint, e.plan, e.weights),
    FINITE: lambda e: finite(e.weights, e.counts),
    BITS: lambda e: bits(e.weights, e.written.tensors),
}
GATES = (*_OF_FILES, STRICT_LOAD, LOGITS, VALIDATION)  # every name, in the order in which they are asked


def first_gates(evidence: Evidence, *, compute_logits: bool = True, only: Collection[str] = GATES) -> tuple[Gate, ...]:
    """The result of every gate in ``only``; none raises for a finding. One that was not asked for says so."""
    return (*file_gates(evidence, only), *model_gates(evidence, compute_logits=compute_logits, only=only))


def file_gates(evidence: Evidence, only: Collection[str] = GATES) -> tuple[Gate, ...]:
    """The gates that need neither torch nor transformers."""
    return tuple(gate(evidence) if name in only else skipped(name, NOT_ASKED) for name, gate in _OF_FILES.items())


def model_gates(evidence: Evidence, *, compute_logits: bool, only: Collection[str] = GATES) -> tuple[Gate, ...]:
    """The gates that need a model.

    Without ``compute_logits`` the gate of logits is skipped too. Logits need a model that loads: that gate is then
    asked as well, and its result left out where nobody wanted it.
    """
    wanted = {LOGITS, VALIDATION} & set(only if compute_logits else ())
    loads = strict_load(evidence.weights, evidence.models) if wanted or STRICT_LOAD in only else None
    shown = loads if loads and STRICT_LOAD in only else skipped(STRICT_LOAD, NOT_ASKED)
    return (shown, *_of_logits(evidence, loads, wanted))


def _of_logits(evidence: Evidence, loads: Gate | None, wanted: Collection[str]) -> Iterator[Gate]:
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


# Which gates a converted step is asked.


def prove(evidence: Evidence, *, with_logits: bool, why_not: str, only: Collection[str] = GATES) -> tuple[Gate, ...]:
    """What every gate in ``only`` found. Without a step (the location names none) identity is skipped.

    ``why_not`` is what the logits gate says when it is skipped.
    """
    results = first_gates(evidence, compute_logits=with_logits, only=only)
    return tuple(_said(result, with_logits, why_not) for result in results)


def prove_model(evidence: Evidence, *, with_logits: bool, why_not: str) -> tuple[Gate, ...]:
    """What the gates that need a model found of a step that `gates.file_gates` have looked at."""
    results = model_gates(evidence, compute_logits=with_logits)
    return tuple(_said(result, with_logits, why_not) for result in results)


def _said(result: Gate, with_logits: bool, why_not: str) -> Gate:
    if result.name == "logits" and result.outcome == SKIPPED and not with_logits:
        return skipped("logits", why_not)
    return result
