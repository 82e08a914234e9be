"""The gates: a step is published only after every one of them passed.

They ask whether the checkpoint is the step that its location names, whether every tensor is in the files, whole, finite
and bit for bit that of the source, whether transformers loads them strictly, and whether the logits are those of the
network that the checkpoint describes. To add a gate, write its function here and call it in :func:`run_gates`; its
meaning for readers of a card is in ``cards/sentences.py``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from publish.convert.plan import ConversionPlan
from publish.convert.rules import COPY
from publish.convert.writer import TensorDigest, Written
from publish.dtypes import DTYPES
from publish.errors import GateError
from publish.interrupt import stop_if
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.records.files import FileRecord
from publish.records.gates import PASSED, Gate, could_not_read, failed, passed, skipped
from publish.text import some
from publish.verify.hf_model import STRICT_LOAD, verify_strict_load
from publish.verify.logits import LOGITS, VALIDATION, verify_logits, verify_validation_logits
from publish.verify.weights import WeightFolder, open_weights

IDENTITY, FILE_LENGTH, COMPLETENESS, FINITE, BITS = "identity", "file-length", "completeness", "finite", "bits"
NOT_REQUESTED = "not requested"

_READ_BYTES = 1 << 19  # read and hashed at a time: they stay in the processor's cache
_COUNTED = 1 << 16  # elements that are counted at a time, for the same reason


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
    counts: Mapping[str, NonFinite] | None = None
    vocabulary: int | None = None

    @cached_property
    def weights(self) -> Path | WeightFolder:
        """The folder with its headers read, or the path of one whose headers are damaged: then each gate says why."""
        try:
            return WeightFolder.open(self.folder)
        except GateError:
            return self.folder


_FILE_GATES: Mapping[str, Callable[[Evidence], Gate]] = {
    IDENTITY: lambda e: verify_identity(e.checkpoint, e.config, e.step),
    FILE_LENGTH: lambda e: verify_file_length(e.weights, e.written.files),
    COMPLETENESS: lambda e: verify_completeness(e.checkpoint, e.plan, e.weights),
    FINITE: lambda e: verify_finite(e.weights, e.counts),
    BITS: lambda e: verify_bits(e.weights, e.written.tensors),
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
    load = verify_strict_load(evidence.weights) if computed or STRICT_LOAD in only else None
    results.append(load if load and STRICT_LOAD in only else skipped(STRICT_LOAD, NOT_REQUESTED))
    if not computed or load is None:
        return (*results, skipped(LOGITS, NOT_REQUESTED if logits else why_skipped))
    if load.outcome != PASSED:
        return (*results, skipped(LOGITS, "the model does not load"))
    stop_if(stop)
    if LOGITS in computed:
        results.append(verify_logits(evidence.checkpoint, evidence.plan, evidence.folder, evidence.vocabulary))
    else:
        results.append(skipped(LOGITS, NOT_REQUESTED))
    stored = evidence.checkpoint.state.validation_logits
    if VALIDATION in computed and stored is not None:
        stop_if(stop)
        results.append(verify_validation_logits(evidence.checkpoint, evidence.plan, stored))
    return tuple(results)


def verify_identity(checkpoint: RawCheckpoint, config: NeoxConfig, step: int | None) -> Gate:
    """The checkpoint's own ``iteration`` is ``step``, and its own ``args`` are the config's.

    Skipped where the location names no step, or the checkpoint states no iteration: GPT-NeoX keeps it in the first
    ``mp_rank`` file (``megatron/checkpointing.py``), which a pipeline checkpoint can be converted without.
    """
    if step is None:
        return skipped(IDENTITY, "the location names no step")
    iteration, args = checkpoint.state.iteration, checkpoint.state.args
    pairs = list(_stated_twice(checkpoint, config))
    figures = {"step": step, "args_compared": len(pairs)}
    wrong = [
        f"{name} is {theirs!r} in the checkpoint but {ours!r} in the config"
        for name, ours, theirs in pairs
        if ours != theirs
    ]
    if iteration is not None and iteration != step:
        wrong.insert(0, f"the checkpoint is of iteration {iteration:,}, not {step:,}")
    if iteration is not None:
        figures["iteration"] = iteration
    if wrong:
        return failed(IDENTITY, "; ".join(wrong), **figures)
    if iteration is None:
        why = "its mp_rank file has no iteration" if args else "it has no mp_rank file"
        return skipped(IDENTITY, f"the checkpoint does not state its iteration: {why}", **figures)
    return passed(IDENTITY, f"iteration {iteration:,}; {len(pairs)} sizes match the config", **figures)


def _stated_twice(checkpoint: RawCheckpoint, config: NeoxConfig) -> Iterator[tuple[str, Any, Any]]:
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


def verify_file_length(folder: Path | WeightFolder, files: Sequence[FileRecord]) -> Gate:
    """Each weight file is as long as its header and the writer's record say; its tensors fill it without a gap."""
    try:
        sizes = open_weights(folder).sizes
    except GateError as error:
        return could_not_read(FILE_LENGTH, error)
    recorded = {file.path: file.size for file in files if file.path.endswith(".safetensors")}
    wrong = [
        f"{name} has {sizes.get(name, 0):,} bytes, but {recorded.get(name, 0):,} were written"
        for name in sorted(sizes.keys() | recorded)
        if sizes.get(name) != recorded.get(name)
    ]
    figures = {"files": len(sizes), "bytes": sum(sizes.values())}
    if wrong:
        return failed(FILE_LENGTH, some(wrong), **figures)
    counted = "1 weight file" if figures["files"] == 1 else f"{figures['files']} weight files"
    return passed(FILE_LENGTH, f"{counted}, {figures['bytes']:,} bytes as recorded", **figures)


def verify_completeness(checkpoint: RawCheckpoint, plan: ConversionPlan, folder: Path | WeightFolder) -> Gate:
    """Every source tensor is used or dropped with a reason; every tensor of the plan is in its file, whole."""
    try:
        written = open_weights(folder)
    except GateError as error:
        return could_not_read(COMPLETENESS, error)
    wrong = [*_unused(checkpoint, plan), *_unfilled(plan), *_misplaced(plan, written)]
    figures = {
        "source_tensors": len(checkpoint.ranks[0]),
        "dropped": len(plan.dropped),
        "written_tensors": len(written.tensors),
        "parameters": plan.parameters,
    }
    if wrong:
        return failed(COMPLETENESS, some(wrong), **figures)
    detail = (
        f"{figures['source_tensors']} source tensors became {figures['written_tensors']}, {len(plan.dropped)} dropped"
    )
    return passed(COMPLETENESS, detail, **figures)


def _unused(checkpoint: RawCheckpoint, plan: ConversionPlan) -> Iterator[str]:
    """Source rows that no recipe uses. Copies on other ranks of what is taken from rank 0 count as used."""
    used: dict[tuple[int, str], set[tuple[int, int]]] = {}
    for recipe in plan.recipes:
        for part in recipe.slices:
            used.setdefault((part.rank, part.tensor.name), set()).add(part.source_rows)
    split = {name for rank, name in used if rank}
    dropped = {name for name, _ in plan.dropped}
    for rank, tensors in enumerate(checkpoint.ranks):
        for name, tensor in tensors.items():
            copied = rank > 0 and name not in split and (0, name) in used
            if name in dropped or copied:
                continue
            end = 0
            for start, count in sorted(used.get((rank, name), ())):
                end = max(end, start + count) if start <= end else end
            if end != tensor.shape[0]:
                yield f"{name} of rank {rank}: rows from {end} on are not used"


def _unfilled(plan: ConversionPlan) -> Iterator[str]:
    for recipe in plan.recipes:
        areas = [part.source_rows[1] * math.prod(part.tensor.shape[1:]) for part in recipe.slices]
        filled = sum(areas) == recipe.elements if recipe.how == COPY else set(areas) == {recipe.elements}
        if not filled:
            yield f"{recipe.name}: its slices hold {sum(areas):,} elements, its shape {recipe.elements:,}"


def _misplaced(plan: ConversionPlan, written: WeightFolder) -> Iterator[str]:
    planned = {recipe.name: (recipe, file.name) for file in plan.files for recipe in file.recipes}
    for name in sorted({recipe.name for recipe in plan.recipes} ^ planned.keys()):
        yield f"{name} is not both among the tensors and in a file of the plan"
    for name in sorted(planned.keys() - written.tensors.keys()):
        yield f"{name} was planned but not written"
    for name in sorted(written.tensors.keys() - planned.keys()):
        yield f"{name} was written but not planned"
    for name in sorted(planned.keys() & written.tensors.keys()):
        (recipe, file), found = planned[name], written.tensors[name]
        want, got = (recipe.dtype, recipe.shape, file), (found.dtype, found.shape, found.file)
        if want != got:
            yield f"{name} is {got[0]} {list(got[1])} in {got[2]}, planned as {want[0]} {list(want[1])} in {want[2]}"


@dataclass(frozen=True, slots=True)
class NonFinite:
    """How many elements of a tensor are NaN or infinite."""

    elements: int
    nans: int
    infinities: int

    def plus(self, more: NonFinite) -> NonFinite:
        """Both together."""
        return NonFinite(self.elements + more.elements, self.nans + more.nans, self.infinities + more.infinities)


def count_non_finite(data: memoryview | bytes, dtype: str) -> NonFinite:
    """Count in little-endian bytes of ``dtype`` (float16, bfloat16, float32), by their bits.

    The bits of NaN and infinity are the largest: as signed integers where they are positive, as unsigned integers where
    they are negative. So two maxima show, without a copy, that there are none.
    """
    infinity, size = DTYPES[dtype].infinity, DTYPES[dtype].itemsize
    bits = np.frombuffer(data, f"<u{size}")
    sign = 1 << (8 * size - 1)
    nans = infinities = 0
    if bits.size and (bits.view(f"<i{size}").max() >= infinity or bits.max() >= sign | infinity):
        for start in range(0, bits.size, _COUNTED):
            magnitude = bits[start : start + _COUNTED] & bits.dtype.type(sign - 1)
            nans += int(np.count_nonzero(magnitude > infinity))
            infinities += int(np.count_nonzero(magnitude == infinity))
    return NonFinite(bits.size, nans, infinities)


def verify_finite(folder: Path | WeightFolder, counts: Mapping[str, NonFinite] | None = None) -> Gate:
    """No element is NaN or infinite. Where ``counts``, taken while writing, are None, the files are read."""
    try:
        if counts is None:
            weights = open_weights(folder)
            counts = dict.fromkeys(weights.tensors, NonFinite(0, 0, 0))
            for tensor, chunk in weights.chunks(weights.tensors.values()):
                counts[tensor.name] = counts[tensor.name].plus(count_non_finite(chunk, tensor.dtype))
    except GateError as error:
        return could_not_read(FINITE, error)
    bad = {name: count for name, count in sorted(counts.items()) if count.nans or count.infinities}
    elements = sum(count.elements for count in counts.values())
    figures = {
        "elements": elements,
        "nans": sum(count.nans for count in bad.values()),
        "infinities": sum(count.infinities for count in bad.values()),
        "tensors_affected": len(bad),
    }
    if bad:
        shown = some(f"{name} ({count.nans:,} NaN, {count.infinities:,} infinite)" for name, count in bad.items())
        return failed(FINITE, f"not finite: {shown}", **figures)
    return passed(FINITE, f"all {elements:,} elements are finite", **figures)


def verify_bits(folder: Path | WeightFolder, digests: Sequence[TensorDigest]) -> Gate:
    """XXH3-128 of every tensor as read back from the files equals that of the bytes that came from the source."""
    source = {digest.name: digest.xxh3 for digest in digests}
    try:
        weights = open_weights(folder)
        tensors = weights.tensors
        hashes = {name: xxhash.xxh3_128() for name in sorted(tensors.keys() & source)}
        for tensor, chunk in weights.chunks((tensors[name] for name in hashes), _READ_BYTES):
            hashes[tensor.name].update(chunk)
    except GateError as error:
        return could_not_read(BITS, error)
    wrong = [f"{name} is in the files but not in the source" for name in sorted(tensors.keys() - source)]
    wrong += [f"{name} is in the source but not in the files" for name in sorted(source.keys() - tensors.keys())]
    for name, digest in hashes.items():
        if digest.hexdigest() != source[name]:
            wrong.append(f"{name} has digest {digest.hexdigest()}, the source has {source[name]}")
    count = sum(tensors[name].nbytes for name in hashes)
    if wrong:
        return failed(BITS, some(wrong), tensors=len(tensors), bytes=count, different=len(wrong))
    return passed(
        BITS, f"{len(tensors)} tensors, {count:,} bytes equal to the source", tensors=len(tensors), bytes=count
    )
