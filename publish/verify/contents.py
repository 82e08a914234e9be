"""Is everything there, in the right place, finite, and bit for bit what the source held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from publish.convert.plan import ConversionPlan
from publish.convert.rules import COPY
from publish.convert.writer import TensorDigest
from publish.errors import GateError
from publish.formats.safetensors import DTYPES, WeightFolder, chunks_of, opened
from publish.neox.checkpoint import RawCheckpoint
from publish.records.files import FileRecord
from publish.records.gates import Gate, could_not_read, failed, passed
from publish.text import some

# Numbers about tensors, chunk by chunk as they pass: how many are not finite.


_BLOCK = 1 << 16  # elements at a time: they stay in the processor's cache
_BITS: Mapping[str, tuple[type[Any], int]] = {  # unsigned type, bits of infinity
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
    "float32": (np.uint32, 0x7F800000),
}


@dataclass(frozen=True, slots=True)
class NotFinite:
    """How many elements of a tensor are NaN or infinite."""

    elements: int
    nans: int
    infinities: int

    def plus(self, more: NotFinite) -> NotFinite:
        """Both together."""
        return NotFinite(self.elements + more.elements, self.nans + more.nans, self.infinities + more.infinities)


def count_not_finite(data: memoryview | bytes, dtype: str) -> NotFinite:
    """Count in little-endian bytes of ``dtype`` (float16, bfloat16, float32), by their bits.

    What is not finite is at least infinity as a signed number, or at least minus infinity as an unsigned one: two
    maxima tell, without a copy, that there is none.
    """
    kind, infinity = _BITS[dtype]
    bits = np.frombuffer(data, kind)
    sign = 1 << (bits.itemsize * 8 - 1)
    nans = infinities = 0
    if bits.size and (bits.view(f"i{bits.itemsize}").max() >= infinity or bits.max() >= sign | infinity):
        for start in range(0, bits.size, _BLOCK):
            magnitude = bits[start : start + _BLOCK] & kind(sign - 1)
            nans += int(np.count_nonzero(magnitude > infinity))
            infinities += int(np.count_nonzero(magnitude == infinity))
    return NotFinite(bits.size, nans, infinities)


COMPLETENESS, FINITE, BITS, FILE_LENGTH = "completeness", "finite", "bits", "file-length"

_BUFFER = 1 << 19  # bytes: read and digested within the processor's cache


def completeness(checkpoint: RawCheckpoint, plan: ConversionPlan, folder: Path | WeightFolder) -> Gate:
    """Every source tensor is in the result or dropped with a reason; every tensor of the plan is in its file, whole."""
    try:
        written = opened(folder)
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
        f"{figures['source_tensors']} source tensors made {figures['written_tensors']}, {len(plan.dropped)} dropped"
    )
    return passed(COMPLETENESS, detail, **figures)


def _unused(checkpoint: RawCheckpoint, plan: ConversionPlan) -> Iterator[str]:
    """Source rows that nothing takes, but for other ranks' copies of what rank 0 alone makes."""
    taken: dict[tuple[int, str], set[tuple[int, int]]] = {}
    for recipe in plan.recipes:
        for part in recipe.slices:
            taken.setdefault((part.rank, part.tensor.name), set()).add(part.source_rows)
    split = {name for rank, name in taken if rank}
    dropped = {name for name, _ in plan.dropped}
    for rank, tensors in enumerate(checkpoint.ranks):
        for name, tensor in tensors.items():
            copied = rank > 0 and name not in split and (0, name) in taken
            if name in dropped or copied:
                continue
            end = 0
            for start, count in sorted(taken.get((rank, name), ())):
                end = max(end, start + count) if start <= end else end
            if end != tensor.shape[0]:
                yield f"{name} of rank {rank}: rows from {end} on are in no tensor"


def _unfilled(plan: ConversionPlan) -> Iterator[str]:
    for recipe in plan.recipes:
        areas = [part.source_rows[1] * math.prod(part.tensor.shape[1:]) for part in recipe.slices]
        filled = sum(areas) == recipe.elements if recipe.how == COPY else set(areas) == {recipe.elements}
        if not filled:
            yield f"{recipe.name}: its parts hold {sum(areas):,} elements, and it has {recipe.elements:,}"


def _misplaced(plan: ConversionPlan, written: WeightFolder) -> Iterator[str]:
    planned = {recipe.name: (recipe, file.name) for file in plan.files for recipe in file.recipes}
    for name in sorted({recipe.name for recipe in plan.recipes} ^ planned.keys()):
        yield f"{name} is in the plan, but not once in its tensors and once in its files"
    for name in sorted(planned.keys() - written.tensors.keys()):
        yield f"{name} was planned and is not written"
    for name in sorted(written.tensors.keys() - planned.keys()):
        yield f"{name} is written and was not planned"
    for name in sorted(planned.keys() & written.tensors.keys()):
        (recipe, file), found = planned[name], written.tensors[name]
        due, got = (recipe.dtype, recipe.shape, file), (DTYPES[found.dtype], found.shape, found.path.name)
        if due != got:
            yield f"{name} is {got[0]} {list(got[1])} in {got[2]}, planned as {due[0]} {list(due[1])} in {due[2]}"


def count_in(folder: Path | WeightFolder) -> dict[str, NotFinite]:
    """Count in the written files, a chunk at a time.

    Raises:
        GateError: a file is broken.
    """
    counts = {}
    for name, tensor in opened(folder).tensors.items():
        parts = [count_not_finite(chunk, DTYPES[tensor.dtype]) for chunk in tensor.chunks()]
        counts[name] = NotFinite(
            sum(part.elements for part in parts),
            sum(part.nans for part in parts),
            sum(part.infinities for part in parts),
        )
    return counts


def finite(folder: Path | WeightFolder, counts: Mapping[str, NotFinite] | None = None) -> Gate:
    """No element is NaN or infinite; ``counts`` were taken while writing, else the files are read."""
    try:
        found = count_in(folder) if counts is None else counts
    except GateError as error:
        return could_not_read(FINITE, error)
    bad = {name: count for name, count in sorted(found.items()) if count.nans or count.infinities}
    elements = sum(count.elements for count in found.values())
    figures = {
        "elements": elements,
        "nans": sum(count.nans for count in bad.values()),
        "infinities": sum(count.infinities for count in bad.values()),
        "tensors_affected": len(bad),
    }
    if bad:
        shown = some(f"{name} ({each.nans:,} NaN, {each.infinities:,} infinite)" for name, each in bad.items())
        return failed(FINITE, f"not finite: {shown}", **figures)
    return passed(FINITE, f"all {elements:,} elements are finite", **figures)


def bits(folder: Path | WeightFolder, digests: Sequence[TensorDigest]) -> Gate:
    """XXH3-128 of every tensor as read back from the files equals that of the bytes that came from the source."""
    due = {digest.name: digest.xxh3 for digest in digests}
    try:
        tensors = opened(folder).tensors
        found = {name: xxhash.xxh3_128() for name in sorted(tensors.keys() & due)}
        for tensor, chunk in chunks_of((tensors[name] for name in found), _BUFFER):
            found[tensor.name].update(chunk)
    except GateError as error:
        return could_not_read(BITS, error)
    wrong = [f"{name} is only {'written' if name in tensors else 'read'}" for name in sorted(tensors.keys() ^ due)]
    for name, own in found.items():
        if own.hexdigest() != due[name]:
            wrong.append(f"{name} has digest {own.hexdigest()}, and the source's is {due[name]}")
    count = sum(tensors[name].nbytes for name in found)
    if wrong:
        return failed(BITS, some(wrong), tensors=len(tensors), bytes=count, different=len(wrong))
    return passed(
        BITS, f"{len(tensors)} tensors, {count:,} bytes equal the source's", tensors=len(tensors), bytes=count
    )


def file_length(folder: Path | WeightFolder, files: Sequence[FileRecord]) -> Gate:
    """Each weight file is as long as its header and the writer's record say; its tensors fill it without a gap."""
    try:
        sizes = opened(folder).sizes
    except GateError as error:
        return could_not_read(FILE_LENGTH, error)
    recorded = {file.path: file.size for file in files if file.path.endswith(".safetensors")}
    wrong = [
        f"{name} has {sizes.get(name, 0):,} bytes, and {recorded.get(name, 0):,} were written"
        for name in sorted(sizes.keys() | recorded)
        if sizes.get(name) != recorded.get(name)
    ]
    figures = {"files": len(sizes), "bytes": sum(sizes.values())}
    if wrong:
        return failed(FILE_LENGTH, some(wrong), **figures)
    counted = "1 weight file" if figures["files"] == 1 else f"{figures['files']} weight files"
    return passed(FILE_LENGTH, f"{counted}, {figures['bytes']:,} bytes as claimed", **figures)
