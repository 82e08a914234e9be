"""The plan of a conversion: every Hugging Face tensor, the slices that make it, and the files. No weight is read.

Every tensor of the checkpoint is used or dropped with a reason, and every tensor of the model has a source.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from publish.convert.architecture import (
    Architecture,
    Sizes,
    choose_architecture,
    matching_architecture,
    measure_sizes,
)
from publish.convert.rules import COPY, DROPPED, UNUSED_NORM, Heads, Rule, Shards, Slice, Tables
from publish.dtypes import DTYPES, WEIGHT_DTYPES
from publish.errors import ConfigError, ConversionError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, Network
from publish.records.manifest import Note, note
from publish.text import some

FORMAT = 1  # of the digest: increment it when the same tensors are written differently
MAX_FILE_BYTES = 5_000_000_000  # the default of transformers 4.x
INDEX_NAME = "model.safetensors.index.json"
_LAYER_PREFIX = re.compile(r"layers\.\d+\.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One Hugging Face tensor and how it is made.

    ``how`` is :data:`~publish.convert.rules.COPY`: the ``slices`` fill it, or :data:`~publish.convert.rules.SUM`: they
    are added in float32 and rounded once. ``dtype`` is what is written, ``source_dtype`` what the checkpoint holds.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    slices: tuple[Slice, ...]
    how: str = COPY

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * DTYPES[self.dtype].itemsize

    @property
    def source_dtype(self) -> str:
        return self.slices[0].tensor.dtype


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One safetensors file and its tensors, sorted by name, as the safetensors library writes them."""

    name: str
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class ConversionPlan:
    """What `folder.write_folder` executes.

    ``recipes`` are in the model's order. ``dropped`` are (GPT-NeoX name, reason). ``identical`` are groups of tensors,
    one per rank, whose bits must be equal. ``notes`` are deviations that the card states. ``overrides`` are keys of
    ``config.json`` whose values the release file replaces.
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
        """Bytes of all tensors as they are written, without the headers of the files."""
        return sum(recipe.nbytes for recipe in self.recipes)

    @property
    def largest_tensor(self) -> int:
        return max(recipe.nbytes for recipe in self.recipes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan without location, file names and offsets of the checkpoint: equal for a run's steps."""
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
    slices = [
        [part.rank, part.tensor.name, part.tensor.shape, part.source_rows, part.target_row, part.target_column]
        for part in recipe.slices
    ]
    return [recipe.name, recipe.dtype, recipe.shape, recipe.how, slices]


def assign_files(recipes: Iterable[Recipe], limit: int = MAX_FILE_BYTES) -> tuple[WeightFile, ...]:
    """Files of at most ``limit`` tensor bytes, filled in the model's order; a larger tensor has a file to itself."""
    shards: list[list[Recipe]] = [[]]
    filled = 0
    for recipe in recipes:
        if shards[-1] and filled + recipe.nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(recipe)
        filled += recipe.nbytes
    names = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    )
    by_name = [tuple(sorted(shard, key=lambda recipe: recipe.name)) for shard in shards]
    return tuple(WeightFile(name, shard) for name, shard in zip(names, by_name, strict=True))


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
    network, first = config.network, checkpoint.ranks[0]
    for option, count in (("num_attention_heads", network.heads), ("num_kv_heads", network.kv_heads)):
        if count % checkpoint.tensor_parallel:
            raise ConfigError(
                f"{option} is {count}, which {checkpoint.tensor_parallel} tensor-parallel ranks cannot share",
                checkpoint.where,
                "check num-attention-heads, num-kv-heads and model-parallel-size against the run's own YAML",
            )
    in_first_layer = frozenset(name.removeprefix("layers.0.") for name in first if name.startswith("layers.0."))
    chosen = choose_architecture(network, in_first_layer, config.where, architecture)
    sizes = measure_sizes(checkpoint, config)
    rules = tuple(_rules(chosen.tables, network.layers))
    dropped = _account(checkpoint, rules, network)
    source_dtype = _source_dtype(checkpoint, rules)
    heads = Heads(network.heads, network.kv_heads, network.head_size)
    written = _supported(dtype or source_dtype, checkpoint)
    recipes = tuple(_recipe(checkpoint, rule, sizes, heads, written) for rule in rules)
    identical = dict.fromkeys(rule.neox for rule in rules if rule.merge.identical)
    return ConversionPlan(
        where=checkpoint.where,
        architecture=chosen.name,
        network=network,
        attention_biases=chosen.attention_biases,
        vocabulary=sizes.vocabulary,
        intermediate=sizes.intermediate,
        source_dtype=source_dtype,
        dtype=written,
        recipes=recipes,
        dropped=dropped,
        identical=tuple(_shards(checkpoint, name) for name in identical) if checkpoint.tensor_parallel > 1 else (),
        files=assign_files(recipes, max_file_bytes),
        notes=tuple(_notes(network, chosen, source_dtype, dtype)),
    )


def _rules(tables: Tables, layers: int) -> Iterator[Rule]:
    """The rules of the whole model with full names, in the model's order: the embedding, the layers, the rest."""
    yield tables.outside[0]
    for layer in range(layers):
        prefix = tables.layer_prefix.format(i=layer)
        for rule in tables.layer:
            yield replace(rule, neox=f"layers.{layer}.{rule.neox}", hf=prefix + rule.hf)
    yield from tables.outside[1:]


def _account(checkpoint: RawCheckpoint, rules: tuple[Rule, ...], network: Network) -> tuple[tuple[str, str], ...]:
    """The dropped tensors and why; every other tensor must have a rule, and every rule a tensor."""
    needed, present = {rule.neox for rule in rules}, checkpoint.ranks[0].keys()
    if len({rule.hf for rule in rules}) != len(rules):
        raise AssertionError("a table makes one Hugging Face tensor twice")
    reasons = {name: _reason_to_drop(name, network) for name in sorted(present - needed)}
    unmapped = [name for name, reason in reasons.items() if reason is None]
    for kind, names in (("unmapped", unmapped), ("missing", sorted(needed - present))):
        if names:
            raise ConversionError(
                f"{kind} tensors: {some(names)}",
                checkpoint.where,
                "check the config against the checkpoint; a new kind of tensor needs a rule in convert/rules.py",
            )
    return tuple((name, reason) for name, reason in reasons.items() if reason is not None)


def _reason_to_drop(name: str, network: Network) -> str | None:
    local = _LAYER_PREFIX.sub("", name, count=1)
    if network.shared_norm and local in ("post_attention_layernorm.weight", "post_attention_layernorm.bias"):
        return UNUSED_NORM
    return DROPPED.get(local)


def _shards(checkpoint: RawCheckpoint, name: str) -> Shards:
    return tuple(rank[name] for rank in checkpoint.ranks)


def _source_dtype(checkpoint: RawCheckpoint, rules: tuple[Rule, ...]) -> str:
    examples: dict[str, str] = {}
    for rule in rules:
        for shard in _shards(checkpoint, rule.neox):
            examples.setdefault(shard.dtype, rule.neox)
    if len(examples) > 1:
        found = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(examples.items()))
        raise ConversionError(
            f"weights of several dtypes: {found}", checkpoint.where, "GPT-NeoX writes one; fetch the files again"
        )
    return _supported(next(iter(examples)), checkpoint)


def _supported(dtype: str, checkpoint: RawCheckpoint) -> str:
    if dtype not in WEIGHT_DTYPES:
        raise ConversionError(
            f"weights of {dtype} cannot be written", checkpoint.where, f"the dtypes are {', '.join(WEIGHT_DTYPES)}"
        )
    return dtype


def _recipe(checkpoint: RawCheckpoint, rule: Rule, sizes: Sizes, heads: Heads, dtype: str) -> Recipe:
    shards, merge = _shards(checkpoint, rule.neox), rule.merge
    whole, ranks = sizes.shape(rule), len(shards)
    expected = tuple(size // ranks if axis == merge.axis else size for axis, size in enumerate(whole))
    divisible = merge.axis is None or whole[merge.axis] % ranks == 0
    for number, shard in enumerate(shards):
        if shard.shape != expected or not divisible:
            raise ConfigError(
                f"{shard.name} has shape {list(shard.shape)} on rank {number}, the config makes it {list(expected)}",
                f"{checkpoint.where}/{shard.file}",
                "check hidden_size, num_attention_heads, num_kv_heads and intermediate_size of the config",
            )
    merged = merge.apply(shards, heads)
    how = merge.how if len(merged.slices) > 1 else COPY  # adding nothing would turn -0.0 into 0.0
    return Recipe(rule.hf, dtype, merged.shape, merged.slices, how)


def _notes(network: Network, chosen: Architecture, source: str, dtype: str | None) -> Iterator[Note]:
    if network.epsilon_outside_root:
        yield note("rmsnorm-epsilon", epsilon=network.norm_epsilon)
    if chosen.name == "mistral" and network.sliding_window is not None:
        yield note("sliding-window-needs-eager")
    if chosen.name == "llama" and network.sliding_window is not None:
        yield note("sliding-window-left-out", window=network.sliding_window)
    if chosen.name != (natural := matching_architecture(network)):
        yield note("architecture-overridden", architecture=chosen.name, natural=natural)
    if dtype is not None and dtype != source:
        yield note("cast", source=source, dtype=dtype)
