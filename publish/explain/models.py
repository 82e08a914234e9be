"""A checkpoint's initial weights as GPT-NeoX drew them: the shards of every rank in the order of drawing.

A raw checkpoint holds the shards. A Hugging Face checkpoint is cut back into the shards of every tensor-parallel size
that it may come from: the rules that merge shards (`publish.convert.rules`) are applied backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from publish.convert.architecture import CLASSES, GPT_NEOX, Sizes, layer_count
from publish.convert.rules import Heads, Rule, Slice, Tables, llama_tables, neox_tables
from publish.dtypes import WEIGHT_DTYPES
from publish.errors import CheckpointError, ConfigError, ConversionError
from publish.explain.construction import DEFAULTS, INIT, NORMAL_STDS, OUTPUT, InitMethods, Scale, in_order, init_role
from publish.formats.dtypes import VIEWS, from_float32, to_float32
from publish.formats.torch_archive import RawTensor
from publish.hf.checkpoint import CONFIG, HfCheckpoint
from publish.neox import config as neox_config
from publish.neox.checkpoint import RawCheckpoint, stored_states
from publish.neox.config import MAPPED
from publish.neox.state import TRACKER, RandomState

Bits = NDArray[Any]  # float16 or float32, or bfloat16 as the uint16 of its bits


@dataclass(frozen=True, slots=True)
class Shard:
    """One drawn tensor on one rank.

    ``name`` is canonical (`publish.neox.checkpoint`), ``label`` names it in sentences. ``std`` is the init method's,
    NaN until that is known. ``read`` returns the first rows (all for None) as they are stored.
    """

    name: str
    label: str
    shape: tuple[int, ...]
    dtype: str
    std: float
    read: Callable[[int | None], Bits]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def head(self, count: int) -> NDArray[np.float32]:
        """The first ``count`` values, or all if there are fewer."""
        rows = -(-count // max(1, math.prod(self.shape[1:])))
        values = self.read(min(rows, self.shape[0])).reshape(-1)[:count]
        with np.errstate(invalid="ignore"):  # a NaN in a damaged file stays one
            return to_float32(values, self.dtype)


@dataclass(frozen=True)
class InitialModel:
    """A checkpoint's drawn tensors: ``shards[rank]`` by canonical name in the order of drawing.

    ``layout`` and ``stages`` are None if the files do not show them (Hugging Face format). ``states`` has one state per
    ``mp_rank`` file. ``seed`` is the config's. ``unknown`` are matrices that the tables of `construction` lack.
    ``notes`` are reasons why the weights may not be recomputed.
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

    @property
    def stored(self) -> RandomState | None:
        """The first stored state."""
        return next((state for state in self.states if state is not None), None)

    def with_methods(self, methods: InitMethods, scale: Scale) -> InitialModel:
        """The model with the standard deviations of ``methods``; the shape in ``scale`` is replaced by each shard's."""
        shards = ({name: _with_std(shard, methods, scale) for name, shard in rank.items()} for rank in self.shards)
        return replace(self, shards=tuple(shards))


def _with_std(shard: Shard, methods: InitMethods, scale: Scale) -> Shard:
    method = methods.output if init_role(shard.name) == OUTPUT else methods.init
    return replace(shard, std=NORMAL_STDS[method](replace(scale, shape=shard.shape)))


def initial_models(checkpoint: RawCheckpoint | HfCheckpoint) -> Iterator[InitialModel]:
    """Every way in which GPT-NeoX may have drawn the checkpoint; weights are read when they are needed.

    A raw checkpoint with a training config has one. Without a config there is one for every pair of init methods that
    its standard deviations allow; in Hugging Face format, also for every tensor-parallel size and for legacy MLP names.

    Raises:
        CheckpointError: a damaged file, or no embedding.
        ConfigError: the config is absent or lacks a size, or the init method is not recomputed.
        ConversionError: a tensor is missing or of another shape than the config makes it.
    """
    return _hf_models(checkpoint) if isinstance(checkpoint, HfCheckpoint) else _raw_models(checkpoint)


# ---- raw checkpoints

_COMPUTED = ("inv_freq", "slopes", "_extra_state")  # name endings of matrices that are computed, not drawn
_METHODS = ("init_method", "output_layer_init_method", "init_method_std")
_CPU_ON_RANKS = (
    "use_cpu_initialization draws whole tensors and splits them across ranks, which is recomputed for one rank only"
)
_NOT_EXPLAINED = "its initial weights cannot be recomputed"


def _raw_models(checkpoint: RawCheckpoint) -> Iterator[InitialModel]:
    files = checkpoint.files
    options = neox_config.merge(neox_config.config_files(files), files.where)
    seed = options.get("seed", MAPPED["seed"]) if options else None
    model = InitialModel(
        where=checkpoint.where,
        shards=_raw_shards(checkpoint),
        unknown=tuple(_unknown(checkpoint.ranks[0])),
        layout=checkpoint.layout,
        stages=max(1, checkpoint.pipeline_parallel),
        iteration=checkpoint.state.iteration,
        seed=seed if isinstance(seed, int) else None,
        states=tuple(states.get(TRACKER) for states in stored_states(files)),
    )
    if not options:
        yield from _with_plausible_methods(model, layer_count(checkpoint.ranks[0]), model.first.shape[1], DEFAULTS[2:])
        return
    methods, scale = read_methods(options, checkpoint.where)
    if options.get("use_cpu_initialization") and model.tensor_parallel > 1:
        model = replace(model, notes=(_CPU_ON_RANKS,))
    yield model.with_methods(methods, scale)


def _raw_shards(checkpoint: RawCheckpoint) -> tuple[dict[str, Shard], ...]:
    names = in_order(checkpoint.ranks[0])
    if "embedding.weight" not in names:
        raise CheckpointError("the embedding is missing", checkpoint.where, "fetch the checkpoint again")
    for rank in checkpoint.ranks:
        for tensor in map(rank.__getitem__, names):
            if len(tensor.shape) != 2 or not tensor.elements or tensor.dtype not in WEIGHT_DTYPES:
                what = f"{tensor.name} must be a matrix of floats, got {tensor.dtype} {list(tensor.shape)}"
                raise CheckpointError(what, f"{checkpoint.where}/{tensor.file}", "fetch the checkpoint again")
    return tuple({name: _raw_shard(checkpoint, rank[name]) for name in names} for rank in checkpoint.ranks)


def _raw_shard(checkpoint: RawCheckpoint, tensor: RawTensor) -> Shard:
    read = partial(checkpoint.read, tensor, 0)
    return Shard(tensor.name, tensor.name, tensor.shape, tensor.dtype, math.nan, read)


def _unknown(tensors: Mapping[str, RawTensor]) -> list[str]:
    return sorted(
        name
        for name, tensor in tensors.items()
        if len(tensor.shape) > 1 and init_role(name) is None and not name.endswith(_COMPUTED)
    )


def read_methods(options: Mapping[str, Any], where: str) -> tuple[InitMethods, Scale]:
    """The init methods of a config and the sizes that they depend on; the shape is left open.

    Raises:
        ConfigError: a size is absent, or a method is not recomputed.
    """
    stated = [options.get(name) for name in _METHODS]
    init, output, sigma = (value or default for value, default in zip(stated, DEFAULTS, strict=True))
    if not isinstance(sigma, int | float):
        raise ConfigError(f"init_method_std must be a number, got {sigma!r}", where, "fix the config")
    methods = InitMethods(str(init), str(output), float(sigma))
    if options.get("use_mup"):
        raise ConfigError("use_mup draws every weight a second time, by other rules", where, _NOT_EXPLAINED)
    if methods.obstacle:
        raise ConfigError(methods.obstacle, where, _NOT_EXPLAINED)
    layers, hidden = options.get("num_layers"), options.get("hidden_size")
    if not (isinstance(layers, int) and isinstance(hidden, int) and layers > 0 and hidden > 0):
        what = f"num_layers and hidden_size must be positive numbers, got {layers!r} and {hidden!r}"
        raise ConfigError(what, where, "fix the config")
    return methods, Scale(layers, hidden, methods.sigma, ())


# ---- init methods that the weights allow, if no training config states them

_SAMPLE = 1 << 16  # values whose standard deviation is taken
_ERRORS = 6  # standard errors by which a standard deviation may miss that of its method
_ROUNDING = 2.0**-8  # relative, of the coarsest dtype


def _with_plausible_methods(
    model: InitialModel, layers: int, hidden: int, sigmas: Sequence[float]
) -> Iterator[InitialModel]:
    """The model with every pair of methods that its weights allow; unchanged, with a note, if there is none."""
    methods = plausible_methods(model.shards[0], layers, hidden, sigmas)
    if not methods:
        drawn = [(name, std) for role in (INIT, OUTPUT) for name, _, std in _samples(model.shards[0], role)[:1]]
        measured = ", ".join(f"{name} {std:.5f}" for name, std in drawn)
        note = f"no init method of GPT-NeoX has the standard deviations measured ({measured})"
        yield replace(model, notes=(*model.notes, note))
    for pair in methods:
        yield model.with_methods(pair, Scale(layers, hidden, pair.sigma, ()))


def plausible_methods(
    shards: Mapping[str, Shard], layers: int, hidden: int, sigmas: Sequence[float]
) -> list[InitMethods]:
    """Methods whose standard deviations the shards of one rank have, within sampling error; none, one or several.

    ``sigmas`` are the values that ``init-method-std`` may have had.
    """
    inits = list(_fitting_methods(_samples(shards, INIT), layers, hidden, sigmas))
    outputs = list(_fitting_methods(_samples(shards, OUTPUT), layers, hidden, sigmas))
    return [
        InitMethods(init, output, sigma)
        for init, sigma in inits
        for output, other in outputs
        if sigma == other or "normal" not in (init[-6:], output[-6:])
    ]


def _samples(shards: Mapping[str, Shard], role: str) -> list[tuple[str, Shard, float]]:
    """The first two tensors of one of the run's two methods, with their standard deviations."""
    drawn = [(name, shard) for name, shard in shards.items() if init_role(name) == role][:2]
    return [(name, shard, _measured_std(shard)) for name, shard in drawn]


def _fitting_methods(
    samples: Sequence[tuple[str, Shard, float]], layers: int, hidden: int, sigmas: Sequence[float]
) -> Iterator[tuple[str, float]]:
    seen: set[tuple[float, ...]] = set()
    for sigma in sigmas:
        for name, method in NORMAL_STDS.items():
            expected = tuple(method(Scale(layers, hidden, sigma, shard.shape)) for _, shard, _ in samples)
            close = all(
                abs(std / predicted - 1) <= _ROUNDING + _ERRORS / math.sqrt(2 * min(shard.elements, _SAMPLE))
                for (_, shard, std), predicted in zip(samples, expected, strict=True)
            )
            if close and expected not in seen:
                seen.add(expected)
                yield name, sigma


def _measured_std(shard: Shard) -> float:
    with np.errstate(invalid="ignore"):
        return float(shard.head(_SAMPLE).astype(np.float64).std())


# ---- Hugging Face checkpoints

TENSOR_PARALLEL = (1, 2, 4, 8)
_PADDING = 128  # GPT-NeoX pads a vocabulary to this times the ranks, unless make-vocab-size-divisible-by is set
_NARROW = ("float16", "bfloat16")
_NARROW_ROWS = 16  # rows that decide whether a tensor was widened


@dataclass(frozen=True, slots=True)
class _MergedModel:
    """A Hugging Face checkpoint and the sizes that its config states."""

    checkpoint: HfCheckpoint
    neox: bool
    layers: int
    sigma: float
    sizes: Sizes
    heads: Heads

    @classmethod
    def of(cls, checkpoint: HfCheckpoint) -> _MergedModel:
        config, where = checkpoint.config, f"{checkpoint.where}/{CONFIG}"
        if not config:
            raise ConfigError("there is no config.json beside the weights", where, "fetch the config as well")
        kind = config.get("model_type")
        if kind not in CLASSES:
            raise ConfigError(f"unsupported model_type {kind!r}", where, f"use one of {', '.join(CLASSES)}")
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        layers, hidden, heads, intermediate, vocabulary = (_size(config, name, where) for name in names)
        groups = _size(config, "num_key_value_heads", where, heads)
        if hidden % heads or layers > len(checkpoint.tensors):
            what = f"{layers} layers of width {hidden} with {heads} heads do not fit {len(checkpoint.tensors)} tensors"
            raise ConfigError(what, where, "fetch the model again")
        sigma = config.get("initializer_range")
        return cls(
            checkpoint=checkpoint,
            neox=kind == GPT_NEOX,
            layers=layers,
            sigma=float(sigma) if isinstance(sigma, float) else DEFAULTS[2],
            sizes=Sizes(vocabulary, hidden, (heads + 2 * groups) * (hidden // heads), intermediate),
            heads=Heads(heads, groups, hidden // heads),
        )

    def tables(self, legacy_mlp: bool) -> Tables:
        """The rules that merged the model, except biases and norms."""
        tied = ("embed_out.weight" if self.neox else "lm_head.weight") not in self.checkpoint.tensors
        if self.neox:
            return neox_tables(
                legacy_mlp=legacy_mlp, attention_biases=False, shared_norm=False, tied=tied, parallel=True
            )
        return llama_tables(legacy_mlp=legacy_mlp, attention_biases=False, tied=tied, parallel=True)

    def divides_by(self, ranks: int) -> bool:
        """Whether GPT-NeoX could have split the model across so many ranks."""
        sizes = self.sizes
        split = (self.heads.query, self.heads.key_value, sizes.intermediate, sizes.hidden, sizes.vocabulary)
        padded = sizes.vocabulary % _PADDING == 0
        return all(size % ranks == 0 for size in split) and not (padded and sizes.vocabulary % (_PADDING * ranks))


def _size(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    number = config.get(name)
    number = default if number is None else number
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise ConfigError(f"{name} must be a positive number, got {number!r}", where, "fetch the config again")
    return number


def _hf_models(checkpoint: HfCheckpoint) -> Iterator[InitialModel]:
    merged = _MergedModel.of(checkpoint)
    sigmas = tuple(dict.fromkeys((merged.sigma, DEFAULTS[2])))
    for legacy_mlp in (False,) if merged.neox else (False, True):
        for ranks in filter(merged.divides_by, TENSOR_PARALLEL):
            model = InitialModel(where=checkpoint.where, shards=_cut(merged, legacy_mlp, ranks))
            yield from _with_plausible_methods(model, merged.layers, merged.sizes.hidden, sigmas)


def _cut(merged: _MergedModel, legacy_mlp: bool, ranks: int) -> tuple[dict[str, Shard], ...]:
    """The drawn tensors of every rank, by canonical name in the order of drawing."""
    rules: dict[str, list[tuple[str, Rule]]] = {}
    tables = merged.tables(legacy_mlp)
    for rule in tables.outside:
        rules.setdefault(rule.neox, []).append((rule.hf, rule))
    for layer in range(merged.layers):
        for rule in tables.layer:
            hf = tables.layer_prefix.format(i=layer) + rule.hf
            rules.setdefault(f"layers.{layer}.{rule.neox}", []).append((hf, rule))
    drawn = in_order(rules)
    return tuple({name: _hf_shard(merged, name, rules[name], ranks, rank) for name in drawn} for rank in range(ranks))


def _hf_shard(merged: _MergedModel, name: str, rules: list[tuple[str, Rule]], ranks: int, rank: int) -> Shard:
    checkpoint, merge, whole = merged.checkpoint, rules[0][1].merge, merged.sizes.shape(rules[0][1])
    shape = tuple(size // ranks if axis == merge.axis else size for axis, size in enumerate(whole))
    same = tuple(RawTensor(name, "", "", shape, (shape[1], 1), 0) for _ in range(ranks))
    blocks: list[tuple[RawTensor, Slice]] = []
    for hf, rule in rules:
        merged_tensor = rule.merge.apply(same, merged.heads)
        tensor = checkpoint.tensors.get(hf)
        if tensor is None or tensor.shape != merged_tensor.shape or tensor.dtype not in WEIGHT_DTYPES:
            found = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            what = f"{hf} is {found}; by the config it is a matrix of floats {list(merged_tensor.shape)}"
            raise ConversionError(what, checkpoint.where, "fetch the model again")
        blocks.extend((tensor, part) for part in merged_tensor.slices if part.rank == rank)
    dtype = drawn_dtype(checkpoint, blocks[0][0])
    read = partial(_assemble, checkpoint, shape, dtype, blocks)
    return Shard(name, " + ".join(hf for hf, _ in rules), shape, dtype, math.nan, read)


def _assemble(
    checkpoint: HfCheckpoint,
    shape: tuple[int, ...],
    dtype: str,
    blocks: list[tuple[RawTensor, Slice]],
    rows: int | None,
) -> Bits:
    """The first ``rows`` rows of a shard, from the blocks of the merged tensors that hold it."""
    count = shape[0] if rows is None else rows
    shard = np.empty((count, *shape[1:]), VIEWS[dtype])
    for tensor, part in blocks:
        first, height = part.source_rows
        height = min(height, count - first)
        if height > 0:
            merged_rows = checkpoint.read(tensor, part.target_row, height)
            block = merged_rows[:, part.target_column : part.target_column + shape[1]]
            shard[first : first + height] = narrow(block, tensor.dtype, dtype)
    return shard


def drawn_dtype(checkpoint: HfCheckpoint, tensor: RawTensor) -> str:
    """The narrowest dtype that holds the tensor's first rows exactly: a file may hold halves widened to float32."""
    if tensor.dtype != "float32":
        return tensor.dtype
    head = checkpoint.read(tensor, 0, min(_NARROW_ROWS, tensor.shape[0]))
    with np.errstate(invalid="ignore"):
        exact = (dtype for dtype in _NARROW if np.array_equal(to_float32(from_float32(head, dtype), dtype), head))
        return next(exact, tensor.dtype)


def narrow(values: Bits, source: str, target: str) -> Bits:
    """The values in ``target``; a value that it cannot hold exactly becomes NaN, which nothing draws."""
    if source == target:
        return values
    with np.errstate(invalid="ignore"):
        narrowed = from_float32(values, target)
        inexact = to_float32(narrowed, target) != values
    narrowed[inexact] = from_float32(np.full(1, np.nan, np.float32), target)
    return narrowed
