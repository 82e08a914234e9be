"""The bytes of a merged tensor, in order, from the blocks that its recipe names; memory is bounded by one tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.merge import SUM, Part
from publish.convert.plan import Recipe
from publish.errors import ConversionError
from publish.formats.dtypes import VIEWS, cast, from_float32, to_float32
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint

CHUNK = 1 << 20  # bytes read at a time: looked at, hashed and written while in the cache


def tensor_bytes(checkpoint: RawCheckpoint, recipe: Recipe) -> Iterator[memoryview]:
    """The bytes of the tensor, row-major, little endian, at most `CHUNK` source bytes at a time where it streams."""
    if streams(recipe):
        for part in recipe.parts:
            for chunk in checkpoint.chunks(_rows_of(part), CHUNK):
                yield _cast_chunk(chunk, recipe)
        return
    if _joins_columns(recipe):
        yield from _bands(checkpoint, recipe)
        return
    whole = _sum(checkpoint, recipe) if recipe.how == SUM else _assembled(checkpoint, recipe)
    data = _bytes_of(whole)
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


def streams(recipe: Recipe) -> bool:
    """Whether the parts, one after another, are the tensor: whole rows in order, from contiguous tensors."""
    return recipe.how != SUM and all(
        part.target_column == 0 and part.tensor.shape[1:] == recipe.shape[1:] and part.tensor.contiguous
        for part in recipe.parts
    )


def _rows_of(part: Part) -> RawTensor:
    """The part as a tensor of its own, contiguous as the tensor is."""
    start, count = part.source_rows
    tensor = part.tensor
    row = math.prod(tensor.shape[1:]) * tensor.itemsize
    return replace(tensor, shape=(count, *tensor.shape[1:]), offset=tensor.offset + start * row)


def _cast_chunk(chunk: memoryview, recipe: Recipe) -> memoryview:
    if recipe.dtype == recipe.source_dtype:
        return chunk
    numbers = np.frombuffer(chunk, VIEWS[recipe.source_dtype])
    return _bytes_of(cast(numbers, recipe.source_dtype, recipe.dtype))


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _joins_columns(recipe: Recipe) -> bool:
    """Whether every part has all rows of some columns."""
    rows = (0, recipe.shape[0])
    whole = all(part.source_rows == rows and part.target_row == 0 for part in recipe.parts)
    return recipe.how != SUM and len(recipe.shape) == 2 and whole


def _bands(checkpoint: RawCheckpoint, recipe: Recipe) -> Iterator[memoryview]:
    """The rows of parts that stand side by side, a few at a time."""
    rows, columns = recipe.shape[0], math.prod(recipe.shape[1:])
    kind = VIEWS[recipe.dtype]
    step = max(1, CHUNK // max(1, columns * kind.itemsize))
    for top in range(0, rows, step):
        count = min(step, rows - top)
        band = np.empty((count, columns), kind)
        for part in recipe.parts:
            block = cast(checkpoint.read(part.tensor, top, count), recipe.source_dtype, recipe.dtype)
            band[:, part.target_column : part.target_column + block.shape[1]] = block
        yield _bytes_of(band)


def _assembled(checkpoint: RawCheckpoint, recipe: Recipe) -> NDArray[Any]:
    """Every block at its place, in one buffer, read a few rows at a time."""
    whole = np.empty(recipe.shape, VIEWS[recipe.dtype])
    for part in recipe.parts:
        start, count = part.source_rows
        row = max(1, part.tensor.span // max(1, part.tensor.shape[0]))
        step = max(1, CHUNK // row) if len(recipe.shape) > 1 else count
        for at in range(0, count, step):
            rows = min(step, count - at)
            block = cast(checkpoint.read(part.tensor, start + at, rows), recipe.source_dtype, recipe.dtype)
            top = part.target_row + at
            if block.ndim == 1:
                whole[top : top + rows] = block
            else:
                whole[top : top + rows, part.target_column : part.target_column + block.shape[1]] = block
    return whole


def _sum(checkpoint: RawCheckpoint, recipe: Recipe) -> NDArray[Any]:
    """The parts added in float32, in rank order, rounded once."""
    first, *others = recipe.parts
    added = np.array(to_float32(checkpoint.read(first.tensor), recipe.source_dtype))
    for part in others:
        added += to_float32(checkpoint.read(part.tensor), recipe.source_dtype)
    return from_float32(added, recipe.dtype)


def check_identical(checkpoint: RawCheckpoint, groups: tuple[tuple[RawTensor, ...], ...]) -> None:
    """Every rank must hold the same bits of these tensors.

    Raises:
        ConversionError: names the tensor and the rank.
    """
    for group in groups:
        first = checkpoint.read(group[0]).tobytes()
        for rank, tensor in enumerate(group[1:], start=1):
            if checkpoint.read(tensor).tobytes() != first:
                raise ConversionError(
                    f"{tensor.name} differs between ranks 0 and {rank}, where GPT-NeoX keeps equal copies",
                    f"{checkpoint.where}/{tensor.file}",
                    "the files are of different checkpoints, or the run had a fault: fetch them again",
                )
