"""The gates that every step passes before it is published, in the order in which they are worth asking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from publish.convert.plan import ConversionPlan
from publish.convert.writer import Written
from publish.errors import GateError
from publish.interrupt import stop_if
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.records.gates import PASSED, Gate, failed, passed, skipped
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
from publish.verify.hf_model import STRICT_LOAD, strict_load
from publish.verify.logits import LOGITS, VALIDATION, compare_logits, validation_logits
from publish.verify.weights import WeightFolder

# Is the checkpoint the step that it is taken for, and is its config its own.


IDENTITY = "identity"


def identity(checkpoint: RawCheckpoint, config: NeoxConfig, step: int | None) -> Gate:
    """The checkpoint's own ``iteration`` is ``step``, and its own ``args`` are the config's.

    Skipped where the location names no step, or the checkpoint states no iteration: GPT-NeoX keeps it in the first
    ``mp_rank`` file (``megatron/checkpointing.py``), which a pipeline checkpoint can be converted without.
    """
    if step is None:
        return skipped(IDENTITY, "the location names no step")
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


NOT_REQUESTED = "not requested"


@dataclass(frozen=True)
class Evidence:
    """One converted step: its source, the plan, and what was written into ``folder``.

    ``step`` is the one that the location names, None where it names none. ``counts`` are the NaN and infinite values
    that were counted while writing; where they are None the files are read. ``vocabulary`` is the tokenizer's size,
    None without a tokenizer.
    """

    checkpoint: RawCheckpoint
    config: NeoxConfig
    plan: ConversionPlan
    folder: Path
    written: Written
    step: int | None
    counts: Mapping[str, NotFinite] | None = None
    vocabulary: int | None = None

    @cached_property
    def weights(self) -> Path | WeightFolder:
        """The folder with its headers read, or the path of one whose headers are damaged: then each gate says why."""
        try:
            return WeightFolder.open(self.folder)
        except GateError:
            return self.folder


_FILE_GATES: Mapping[str, Callable[[Evidence], Gate]] = {
    IDENTITY: lambda e: identity(e.checkpoint, e.config, e.step),
    FILE_LENGTH: lambda e: file_length(e.weights, e.written.files),
    COMPLETENESS: lambda e: completeness(e.checkpoint, e.plan, e.weights),
    FINITE: lambda e: finite(e.weights, e.counts),
    BITS: lambda e: bits(e.weights, e.written.tensors),
}
GATES = (*_FILE_GATES, STRICT_LOAD, LOGITS, VALIDATION)  # every name, in the order in which they run


def run_gates(
    evidence: Evidence,
    *,
    logits: bool,
    why_skipped: str,
    only: Collection[str] = GATES,
    stop: threading.Event | None = None,
) -> tuple[Gate, ...]:
    """The result of every gate; those that are not in ``only`` are skipped.

    ``logits``: whether logits are computed; where they are not, ``why_skipped`` is the reason that the logits gate
    gives. They need a model that loads: that gate then runs too, and is shown as skipped where it was not requested.
    The gate of validation logits is in the result only if the checkpoint stores some and logits are computed.

    Raises:
        Interrupted: ``stop`` was set; it is checked before each gate. A gate that finds something does not raise.
    """
    results = []
    for name, gate in _FILE_GATES.items():
        stop_if(stop)
        results.append(gate(evidence) if name in only else skipped(name, NOT_REQUESTED))
    stop_if(stop)
    computed = {LOGITS, VALIDATION} & set(only) if logits else set[str]()
    load = strict_load(evidence.weights) if computed or STRICT_LOAD in only else None
    results.append(load if load and STRICT_LOAD in only else skipped(STRICT_LOAD, NOT_REQUESTED))
    if not computed or load is None:
        return (*results, skipped(LOGITS, NOT_REQUESTED if logits else why_skipped))
    if load.outcome != PASSED:
        return (*results, skipped(LOGITS, "the model does not load"))
    stop_if(stop)
    if LOGITS in computed:
        results.append(compare_logits(evidence.checkpoint, evidence.plan, evidence.folder, evidence.vocabulary))
    else:
        results.append(skipped(LOGITS, NOT_REQUESTED))
    stored = evidence.checkpoint.state.validation_logits
    if VALIDATION in computed and stored is not None:
        stop_if(stop)
        results.append(validation_logits(evidence.checkpoint, evidence.plan, stored))
    return tuple(results)
