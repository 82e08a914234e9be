"""The plan of one conversion: every Hugging Face tensor, the blocks that make it, and the files. No weight is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from publish.convert.merge import PLACE, Part
from publish.neox.checkpoint import RawTensor
from publish.neox.network import Network
from publish.neox.torchfile import ITEM_SIZES

FORMAT = 1  # of the digest: raised when the same tensors would be written differently
MAX_FILE_BYTES = 5_000_000_000  # transformers' own limit of a shard through 4.x
INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One Hugging Face tensor. ``place``: ``parts`` fill it; ``sum``: they are added in float32 and rounded once.

    ``dtype`` is what is written; a part's tensor may have another only where a cast was asked for.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    how: str = PLACE

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_SIZES[self.dtype]

    @property
    def source_dtype(self) -> str:
        return self.parts[0].tensor.dtype


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file and its tensors, sorted by name, as safetensors itself writes them."""

    name: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class ConversionPlan:
    """What `writer.write_weights` executes.

    ``recipes`` are in the model's order. ``dropped`` are (GPT-NeoX name, reason). ``identical`` are groups of tensors,
    one per rank, whose bits must be equal. ``notes`` are deviations that a card has to state. ``overrides`` replace
    keys of ``config.json``, as the maintainer asked.
    """

    where: str
    architecture: str
    network: Network
    attention_biases: bool
    vocabulary: int
    intermediate: int
    source_dtype: str
    dtype: str
    recipes: tuple[Recipe, ...]
    dropped: tuple[tuple[str, str], ...]
    identical: tuple[tuple[RawTensor, ...], ...]
    files: tuple[WeightFile, ...]
    notes: tuple[str, ...] = ()
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def parameters(self) -> int:
        return sum(recipe.elements for recipe in self.recipes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors as they are written, headers apart."""
        return sum(recipe.nbytes for recipe in self.recipes)

    @property
    def largest_tensor(self) -> int:
        return max(recipe.nbytes for recipe in self.recipes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan without file names, offsets and location: equal for all steps of one run."""
        document = {
            "format": FORMAT,
            "architecture": self.architecture,
            "network": asdict(self.network),
            "dtypes": [self.source_dtype, self.dtype],
            "recipes": [_described(recipe) for recipe in self.recipes],
            "dropped": self.dropped,
            "identical": [[tensor.name for tensor in group] for group in self.identical],
            "files": [[file.name, [recipe.name for recipe in file.recipes]] for file in self.files],
            **({"overrides": self.overrides} if self.overrides else {}),
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _described(recipe: Recipe) -> list[object]:
    parts = [
        [part.rank, part.tensor.name, part.tensor.shape, part.source_rows, part.target_row, part.target_column]
        for part in recipe.parts
    ]
    return [recipe.name, recipe.dtype, recipe.shape, recipe.how, parts]


def lay_out(recipes: Iterable[Recipe], limit: int = MAX_FILE_BYTES) -> tuple[WeightFile, ...]:
    """Files of at most ``limit`` tensor bytes, filled in the model's order; a larger tensor has one of its own."""
    shards = list(_shards(recipes, limit))
    if len(shards) == 1:
        return (WeightFile("model.safetensors", _by_name(shards[0])),)
    return tuple(
        WeightFile(f"model-{number:05}-of-{len(shards):05}.safetensors", _by_name(shard))
        for number, shard in enumerate(shards, start=1)
    )


def _shards(recipes: Iterable[Recipe], limit: int) -> Iterator[list[Recipe]]:
    shard: list[Recipe] = []
    filled = 0
    for recipe in recipes:
        if shard and filled + recipe.nbytes > limit:
            yield shard
            shard, filled = [], 0
        shard.append(recipe)
        filled += recipe.nbytes
    yield shard


def _by_name(recipes: list[Recipe]) -> tuple[Recipe, ...]:
    return tuple(sorted(recipes, key=lambda recipe: recipe.name))
