"""What is to be explained: the shards of every rank in the order in which GPT-NeoX draws them, and what is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.explain.construction import NORMAL, OUTPUT, Methods, Scale, role
from publish.formats.dtypes import to_float32
from publish.neox.state import RandomState

Bits = NDArray[Any]  # float16 or float32, or bfloat16 as the uint16 of its bits


@dataclass(frozen=True, slots=True)
class Shard:
    """One drawn tensor on one rank. ``name`` is canonical, ``shown`` the file's; ``std`` as the init method has it
    (NaN while the method is open).

    ``read`` gives its first rows (all for None) as they are stored.
    """

    name: str
    shown: str
    shape: tuple[int, ...]
    dtype: str
    std: float
    read: Callable[[int | None], Bits]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def head(self, count: int) -> NDArray[np.float32]:
        """The first ``count`` values, or all where there are fewer."""
        rows = -(-count // max(1, math.prod(self.shape[1:])))
        values = self.read(min(rows, self.shape[0])).reshape(-1)[:count]
        with np.errstate(invalid="ignore"):  # a NaN of a broken file stays one
            return to_float32(values, self.dtype)


@dataclass(frozen=True)
class Subject:
    """A checkpoint's drawn tensors. ``shards[rank]`` by canonical name in the order of drawing.

    ``layout`` and ``stages`` are None where the files do not tell (Hugging Face format). ``states`` has one state per
    ``mp_rank`` file. ``seed`` is the config's. ``unknown`` are matrices that the tables of `construction` lack.
    ``notes`` say why an explanation is out of reach.
    """

    where: str
    shards: tuple[Mapping[str, Shard], ...]
    unknown: tuple[str, ...] = ()
    layout: str | None = None
    stages: int | None = None
    iteration: int | None = None
    seed: int | None = None
    states: tuple[RandomState | None, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tensor_parallel(self) -> int:
        return len(self.shards)

    @property
    def tied(self) -> bool:
        return "unembedding.weight" not in self.shards[0]

    @property
    def first(self) -> Shard:
        return next(iter(self.shards[0].values()))

    @property
    def values(self) -> int:
        """Drawn values on all ranks."""
        return sum(shard.elements for rank in self.shards for shard in rank.values())


def with_methods(shards: Mapping[str, Shard], methods: Methods, scale: Scale) -> dict[str, Shard]:
    """The shards with the standard deviations of ``methods``; the shape in ``scale`` is each shard's own."""
    return {name: replace(shard, std=_std(shard, methods, scale)) for name, shard in shards.items()}


def _std(shard: Shard, methods: Methods, scale: Scale) -> float:
    method = methods.output if role(shard.name) == OUTPUT else methods.init
    return NORMAL[method](replace(scale, shape=shard.shape))
