"""A model in Hugging Face format as subjects: cut back into the shards of every tensor-parallel size it may be of.

The tables that merge shards (`convert.rules`) are read backwards: each block of a merged tensor names the shard and
the rows that it came from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from publish.convert.dtypes import VIEWS
from publish.convert.merge import Part
from publish.convert.rules import Rule
from publish.errors import ConversionError
from publish.explain.construction import in_order
from publish.explain.drawndtype import drawn_dtype, narrowed
from publish.explain.hfmodel import HfModel, read_model
from publish.explain.methods import DEFAULTS
from publish.explain.plausible import plausible_subjects
from publish.explain.subject import Bits, Shard, Subject
from publish.explain.tensorfile import FileTensor
from publish.neox.torchfile import RawTensor
from publish.source.files import CheckpointFiles

TENSOR_PARALLEL = (1, 2, 4, 8)
_PADDING = 128  # gpt-neox pads a vocabulary to this times the ranks, unless make-vocab-size-divisible-by is another


def hf_subjects(files: CheckpointFiles) -> Iterator[Subject]:
    """Every way in which GPT-NeoX may have drawn the model: sizes of tensor parallelism, eras, init methods.

    Raises:
        ConfigError: no config, or not of an architecture that GPT-NeoX's models become.
        ConversionError: a tensor is missing or of another shape than the config makes it.
        CheckpointError: a broken file.
    """
    model = read_model(files)
    sigmas = tuple(dict.fromkeys((model.sigma, DEFAULTS[2])))
    for era in ("2026",) if model.neox else ("2026", "2023"):
        for ranks in TENSOR_PARALLEL:
            if _divisible(model, ranks):
                shards = _cut(model, era, ranks)
                subject = Subject(where=model.where, shards=shards)
                yield from plausible_subjects(subject, model.layers, model.sizes.hidden, sigmas)


def _divisible(model: HfModel, ranks: int) -> bool:
    sizes = model.sizes
    shared = (model.heads.query, model.heads.key_value, sizes.intermediate, sizes.hidden, sizes.vocabulary)
    usual = sizes.vocabulary % _PADDING == 0
    return all(size % ranks == 0 for size in shared) and not (usual and sizes.vocabulary % (_PADDING * ranks))


def _cut(model: HfModel, era: str, ranks: int) -> tuple[dict[str, Shard], ...]:
    """The drawn tensors of every rank, by canonical name in the order of drawing; their standard deviation is open."""
    rules: dict[str, list[tuple[str, Rule]]] = {}
    tables = model.tables(era)
    for rule in tables.outside:
        rules.setdefault(rule.neox, []).append((rule.hf, rule))
    for layer in range(model.layers):
        for rule in tables.layer:
            hf = tables.layer_prefix.format(i=layer) + rule.hf
            rules.setdefault(f"layers.{layer}.{rule.neox}", []).append((hf, rule))
    drawn = in_order(rules)
    return tuple({name: _shard(model, name, rules[name], ranks, rank) for name in drawn} for rank in range(ranks))


def _shard(model: HfModel, name: str, rules: list[tuple[str, Rule]], ranks: int, rank: int) -> Shard:
    merge, whole = rules[0][1].merge, model.sizes.shape(rules[0][1])
    shape = tuple(size // ranks if axis == merge.axis else size for axis, size in enumerate(whole))
    same = tuple(RawTensor(name, "", "", shape, (shape[1], 1), 0) for _ in range(ranks))
    blocks: list[tuple[FileTensor, Part]] = []
    for hf, rule in rules:
        made = rule.merge.place(same, model.heads)
        tensor = model.tensors.get(hf)
        if tensor is None or tensor.shape != made.shape:
            found = "missing" if tensor is None else f"{list(tensor.shape)}"
            what = f"{hf} is {found}, and the config makes it {list(made.shape)}"
            raise ConversionError(what, model.where, "fetch the model again")
        blocks.extend((tensor, part) for part in made.parts if part.rank == rank)
    shown = " + ".join(hf for hf, _ in rules)
    dtype = drawn_dtype(blocks[0][0])
    return Shard(name, shown, shape, dtype, math.nan, partial(_assembled, shape, dtype, blocks))


def _assembled(shape: tuple[int, ...], dtype: str, blocks: list[tuple[FileTensor, Part]], rows: int | None) -> Bits:
    """The first ``rows`` rows of a shard, from the blocks of merged tensors that it became."""
    count = shape[0] if rows is None else rows
    shard = np.empty((count, *shape[1:]), VIEWS[dtype])
    for tensor, part in blocks:
        first, height = part.source_rows
        height = min(height, count - first)
        if height > 0:
            block = tensor.rows(part.target_row, height)[:, part.target_column : part.target_column + shape[1]]
            shard[first : first + height] = narrowed(block, tensor.dtype, dtype)
    return shard
