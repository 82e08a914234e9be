"""How the tensor-parallel shards of one tensor become one Hugging Face tensor: blocks of rows and columns, as data.

No weight is read here. A placement names, for every block of the result, the shard it comes from; only a sum needs
arithmetic. Rows of a one-dimensional tensor are its elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from publish.formats.torch_archive import RawTensor

Shards = tuple[RawTensor, ...]  # one per tensor-parallel rank, rank 0 first
PLACE, SUM = "place", "sum"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``source_rows`` (first, count) of ``tensor`` stand at (``target_row``, ``target_column``)."""

    rank: int
    tensor: RawTensor
    source_rows: tuple[int, int]
    target_row: int = 0
    target_column: int = 0


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of the whole model, all ranks together."""

    query: int
    key_value: int
    size: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The merged shape, and the blocks that fill it exactly once (all of it once per part for a sum)."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """A way to merge. ``axis`` is the one GPT-NeoX splits over ranks; None: every rank has the full shape.

    ``identical``: every rank must hold the same bits. ``how``: ``place`` or ``sum``.
    """

    name: str
    axis: int | None
    place: Callable[[Shards, Heads], Placement]
    how: str = PLACE
    identical: bool = False


def _first(shards: Shards, _heads: Heads) -> Placement:
    first = shards[0]
    return Placement(first.shape, (_whole(0, first),))


def _all(shards: Shards, _heads: Heads) -> Placement:
    return Placement(shards[0].shape, tuple(_whole(rank, shard) for rank, shard in enumerate(shards)))


def _rows(shards: Shards, _heads: Heads) -> Placement:
    return _stack(shards, [(rank, 0, shard.shape[0]) for rank, shard in enumerate(shards)])


def _columns(shards: Shards, _heads: Heads) -> Placement:
    starts = [0, *accumulate(shard.shape[1] for shard in shards)]
    parts = tuple(
        Part(rank, shard, (0, shard.shape[0]), 0, start)
        for (rank, shard), start in zip(enumerate(shards), starts, strict=False)
    )
    return Placement((shards[0].shape[0], starts[-1]), parts)


def _half(which: int) -> Callable[[Shards, Heads], Placement]:
    def place(shards: Shards, _heads: Heads) -> Placement:
        halves = [shard.shape[0] // 2 for shard in shards]
        return _stack(shards, [(rank, which * half, half) for rank, half in enumerate(halves)])

    return place


def _projection(which: int) -> Callable[[Shards, Heads], Placement]:
    """Query (0), key (1) or value (2) rows out of the fused projection."""

    def place(shards: Shards, heads: Heads) -> Placement:
        blocks = _grouped if heads.key_value < heads.query else _interleaved
        return _stack(shards, list(blocks(which, len(shards), heads)))

    return place


def _interleaved(which: int, ranks: int, heads: Heads) -> Iterator[tuple[int, int, int]]:
    """One key-value head per head: each head's rows are [q, k, v] (gpt-neox transformer.py, ParallelSelfAttention)."""
    for head in range(heads.query):
        rank, local = divmod(head, heads.query // ranks)
        yield rank, (3 * local + which) * heads.size, heads.size


def _grouped(which: int, ranks: int, heads: Heads) -> Iterator[tuple[int, int, int]]:
    """Fewer key-value heads than heads: each rank's rows are [q; k; v] (gpt-neox transformer.py, gqa_project)."""
    counts = [heads.query // ranks, heads.key_value // ranks, heads.key_value // ranks]
    for rank in range(ranks):
        yield rank, sum(counts[:which]) * heads.size, counts[which] * heads.size


def _stack(shards: Shards, blocks: list[tuple[int, int, int]]) -> Placement:
    """Blocks (rank, first row, rows) one below the other."""
    starts = [0, *accumulate(count for _, _, count in blocks)]
    parts = tuple(
        Part(rank, shards[rank], (first, count), start)
        for (rank, first, count), start in zip(blocks, starts, strict=False)
    )
    return Placement((starts[-1], *shards[0].shape[1:]), parts)


def _whole(rank: int, shard: RawTensor) -> Part:
    return Part(rank, shard, (0, shard.shape[0]))


same_on_every_rank = Merge("same_on_every_rank", None, _first, identical=True)
total = Merge("total", None, _all, how=SUM)
join_rows = Merge("join_rows", 0, _rows)
join_columns = Merge("join_columns", 1, _columns)
up_half = Merge("up_half", 0, _half(0))
gate_half = Merge("gate_half", 0, _half(1))
queries = Merge("queries", 0, _projection(0))
keys = Merge("keys", 0, _projection(1))
values = Merge("values", 0, _projection(2))
