"""From a checkpoint's index and its config to a `ConversionPlan`; every tensor accounted for, both ways."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from publish.convert.architecture import Architecture, choose_architecture, natural_name
from publish.convert.merge import PLACE, Heads, Merge, Part, Shards
from publish.convert.rules import DROPPED, UNUSED_NORM, Rule
from publish.convert.sizes import Sizes, heads_of, measure
from publish.dtypes import DTYPES, WEIGHT_DTYPES
from publish.errors import ConfigError, ConversionError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, Network
from publish.records.manifest import Note, note
from publish.text import some

# The plan of one conversion: every Hugging Face tensor, the blocks that make it, and the files. No weight is read.


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
        return self.elements * DTYPES[self.dtype].itemsize

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
    notes: tuple[Note, ...] = ()
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


_LAYER_NAME = re.compile(r"layers\.\d+\.")


@dataclass(frozen=True, slots=True)
class _Placed:
    """A rule at its place: full names on both sides."""

    neox: str
    hf: str
    rule: Rule


def make_plan(
    checkpoint: RawCheckpoint,
    config: NeoxConfig,
    dtype: str | None = None,
    architecture: str | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> ConversionPlan:
    """The plan that converts ``checkpoint``; ``dtype`` casts (default: the tensors' own dtype, bit for bit).

    Raises:
        ConfigError: the network has no Hugging Face counterpart, or the config contradicts the tensors.
        ConversionError: tensors unmapped, missing, surplus, or of several dtypes.
    """
    network = config.network
    _check_parallel(network, checkpoint)
    chosen = choose_architecture(network, _first_layer(checkpoint), config.where, architecture)
    sizes = measure(checkpoint, config)
    placed = tuple(_placed(chosen, network.layers))
    dropped = _account(checkpoint, placed, network)
    source = _one_dtype(checkpoint, placed)
    heads = heads_of(network)
    recipes = tuple(_recipe(checkpoint, place, sizes, heads, dtype or source) for place in placed)
    return ConversionPlan(
        where=checkpoint.where,
        architecture=chosen.name,
        network=network,
        attention_biases=chosen.attention_biases,
        vocabulary=sizes.vocabulary,
        intermediate=sizes.intermediate,
        source_dtype=source,
        dtype=_known(dtype or source),
        recipes=recipes,
        dropped=dropped,
        identical=tuple(_identical(checkpoint, placed)),
        files=lay_out(recipes, max_file_bytes),
        notes=tuple(_notes(network, chosen, source, dtype)),
    )


def _first_layer(checkpoint: RawCheckpoint) -> frozenset[str]:
    prefix = "layers.0."
    return frozenset(name.removeprefix(prefix) for name in checkpoint.ranks[0] if name.startswith(prefix))


def _check_parallel(network: Network, checkpoint: RawCheckpoint) -> None:
    for option, count in (("num_attention_heads", network.heads), ("num_kv_heads", network.kv_heads)):
        if count % checkpoint.tensor_parallel:
            raise ConfigError(
                f"{option} is {count}, which {checkpoint.tensor_parallel} tensor-parallel ranks cannot share",
                checkpoint.where,
                "check num-attention-heads, num-kv-heads and model-parallel-size against the run's own YAML",
            )


def _placed(chosen: Architecture, layers: int) -> Iterator[_Placed]:
    """All rules in the model's order: the embedding, the layers, the rest."""
    outside = [_Placed(rule.neox, rule.hf, rule) for rule in chosen.tables.outside]
    yield from outside[:1]
    for layer in range(layers):
        prefix = chosen.tables.layer_prefix.format(i=layer)
        for rule in chosen.tables.layer:
            yield _Placed(f"layers.{layer}.{rule.neox}", prefix + rule.hf, rule)
    yield from outside[1:]


def _account(checkpoint: RawCheckpoint, placed: tuple[_Placed, ...], network: Network) -> tuple[tuple[str, str], ...]:
    """What is dropped and why; every other tensor must have a rule, and every rule a tensor."""
    needed = {place.neox for place in placed}
    if len(names := [place.hf for place in placed]) != len(set(names)):
        raise AssertionError("a table makes one Hugging Face tensor twice")
    dropped, surplus = [], []
    present = checkpoint.ranks[0].keys()
    for name in sorted(present - needed):
        reason = _reason(name, network)
        if reason is None:
            surplus.append(name)
        else:
            dropped.append((name, reason))
    missing = sorted(needed - present)
    for kind, odd in (("unmapped", surplus), ("missing", missing)):
        if odd:
            raise ConversionError(
                f"{kind} tensors: {some(odd)}",
                checkpoint.where,
                "check the config against the checkpoint; a new kind of tensor needs a rule in convert/rules.py",
            )
    return tuple(dropped)


def _reason(name: str, network: Network) -> str | None:
    local = _LAYER_NAME.sub("", name, count=1)
    if network.shared_norm and local in ("post_attention_layernorm.weight", "post_attention_layernorm.bias"):
        return UNUSED_NORM
    return DROPPED.get(local)


def _source_shards(checkpoint: RawCheckpoint, name: str) -> Shards:
    return tuple(rank[name] for rank in checkpoint.ranks)


def _one_dtype(checkpoint: RawCheckpoint, placed: tuple[_Placed, ...]) -> str:
    examples: dict[str, str] = {}
    for place in placed:
        for shard in _source_shards(checkpoint, place.neox):
            examples.setdefault(shard.dtype, place.neox)
    if len(examples) > 1:
        found = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(examples.items()))
        raise ConversionError(
            f"weights of several dtypes: {found}", checkpoint.where, "GPT-NeoX writes one; fetch the files again"
        )
    return _known(next(iter(examples)))


def _known(dtype: str) -> str:
    if dtype not in WEIGHT_DTYPES:
        raise ConversionError(f"weights of {dtype}", "dtype", f"only {', '.join(WEIGHT_DTYPES)} can be written")
    return dtype


def _recipe(checkpoint: RawCheckpoint, place: _Placed, sizes: Sizes, heads: Heads, dtype: str) -> Recipe:
    shards = _source_shards(checkpoint, place.neox)
    merge = place.rule.merge
    _check_shapes(checkpoint, shards, sizes.shape(place.rule), merge)
    made = merge.place(shards, heads)
    how = merge.how if len(made.parts) > 1 else PLACE  # adding nothing would turn -0.0 into 0.0
    return Recipe(place.hf, dtype, made.shape, made.parts, how)


def _check_shapes(checkpoint: RawCheckpoint, shards: Shards, whole: tuple[int, ...], merge: Merge) -> None:
    ranks = len(shards)
    due = tuple(size // ranks if axis == merge.axis else size for axis, size in enumerate(whole))
    divisible = merge.axis is None or whole[merge.axis] % ranks == 0
    for number, shard in enumerate(shards):
        if shard.shape != due or not divisible:
            raise ConfigError(
                f"{shard.name} is {list(shard.shape)} on rank {number}, and the config makes it {list(due)}",
                f"{checkpoint.where}/{shard.file}",
                "check hidden_size, num_attention_heads, num_kv_heads and intermediate_size of the config",
            )


def _identical(checkpoint: RawCheckpoint, placed: tuple[_Placed, ...]) -> Iterator[tuple[RawTensor, ...]]:
    if checkpoint.tensor_parallel == 1:
        return
    names = dict.fromkeys(place.neox for place in placed if place.rule.merge.identical)
    for name in names:
        yield _source_shards(checkpoint, name)


def _notes(network: Network, chosen: Architecture, source: str, dtype: str | None) -> Iterator[Note]:
    if network.epsilon_outside_root:
        yield note("rmsnorm-epsilon", epsilon=network.norm_epsilon)
    if chosen.name == "mistral" and network.sliding_window is not None:
        yield note("sliding-window-needs-eager")
    if chosen.name == "llama" and network.sliding_window is not None:
        yield note("sliding-window-left-out", window=network.sliding_window)
    if chosen.name != (natural := natural_name(network)):
        yield note("architecture-overridden", architecture=chosen.name, natural=natural)
    if dtype is not None and dtype != source:
        yield note("cast", source=source, dtype=dtype)
