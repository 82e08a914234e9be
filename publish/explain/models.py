"""A model in Hugging Face format as subjects: cut back into the shards of every tensor-parallel size it may be of.

The tables that merge shards (`convert.rules`) are read backwards: each block of a merged tensor names the shard and
the rows that it came from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from publish.convert.architecture import CLASSES, GPT_NEOX, Sizes, layer_count
from publish.convert.rules import Heads, Rule, Slice, Tables, llama_tables, neox_tables
from publish.errors import CheckpointError, ConfigError, ConversionError
from publish.explain.construction import DEFAULTS, INIT, NORMAL, OUTPUT, Methods, Scale, in_order, role
from publish.explain.subject import Bits, Shard, Subject, with_methods
from publish.formats.dtypes import VIEWS, from_float32, to_float32
from publish.formats.safetensors import FileTensor, file_tensors
from publish.formats.torch_archive import RawTensor
from publish.neox import config
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.options import MAPPED
from publish.neox.state import TRACKER, stored_states
from publish.sources.files import CheckpointFiles

# Init methods that the weights themselves allow, for where no training config states them.


_SAMPLE = 1 << 16
_ERRORS = 6  # standard errors of a standard deviation that a method may be off
_ROUNDING = 2.0**-8  # relative, of the coarsest dtype


def plausible_subjects(subject: Subject, layers: int, hidden: int, sigmas: Sequence[float]) -> Iterator[Subject]:
    """The subject with every pair of methods that its weights allow; as it is, with a note, where there is none."""
    methods = plausible_methods(subject.shards[0], layers, hidden, sigmas)
    if not methods:
        note = f"no init method of GPT-NeoX has the standard deviations measured ({measured(subject.shards[0])})"
        yield replace(subject, notes=(*subject.notes, note))
    for each in methods:
        scale = Scale(layers, hidden, each.sigma, ())
        yield replace(subject, shards=tuple(with_methods(rank, each, scale) for rank in subject.shards))


def plausible_methods(shards: Mapping[str, Shard], layers: int, hidden: int, sigmas: Sequence[float]) -> list[Methods]:
    """Methods whose standard deviations the shards of one rank have, within sampling error; none, one or several.

    ``sigmas`` are the values that ``init-method-std`` may have had.
    """
    inits = list(_fitting(_of(shards, INIT), layers, hidden, sigmas))
    outputs = list(_fitting(_of(shards, OUTPUT), layers, hidden, sigmas))
    return [
        Methods(init, output, sigma)
        for init, sigma in inits
        for output, other in outputs
        if sigma == other or "normal" not in (init[-6:], output[-6:])
    ]


def measured(shards: Mapping[str, Shard]) -> str:
    """The standard deviations as measured, for people."""
    parts = [(name, _std(shard)) for which in (INIT, OUTPUT) for name, shard in _of(shards, which)[:1]]
    return ", ".join(f"{name} {std:.5f}" for name, std in parts)


def _of(shards: Mapping[str, Shard], which: str) -> list[tuple[str, Shard]]:
    """The first two tensors that this method of the run's two draws."""
    return [(name, shard) for name, shard in shards.items() if role(name) == which][:2]


def _fitting(
    samples: Sequence[tuple[str, Shard]], layers: int, hidden: int, sigmas: Sequence[float]
) -> Iterator[tuple[str, float]]:
    seen: set[tuple[float, ...]] = set()
    stds = [(shard, _std(shard)) for _, shard in samples]
    for sigma in sigmas:
        for name, method in NORMAL.items():
            due = tuple(method(Scale(layers, hidden, sigma, shard.shape)) for shard, _ in stds)
            close = all(
                abs(std / expected - 1) <= _ROUNDING + _ERRORS / math.sqrt(2 * min(shard.elements, _SAMPLE))
                for (shard, std), expected in zip(stds, due, strict=True)
            )
            if close and due not in seen:
                seen.add(due)
                yield name, sigma


def _std(shard: Shard) -> float:
    with np.errstate(invalid="ignore"):
        return float(shard.head(_SAMPLE).astype(np.float64).std())


# The dtype that weights were drawn in, where a file holds them in a wider one.


_NARROW = ("float16", "bfloat16")
_ROWS = 16  # that are looked at


def drawn_dtype(tensor: FileTensor) -> str:
    """The narrowest dtype that holds the tensor's first rows exactly: float32 ones may be upcast halves."""
    if tensor.dtype != "float32":
        return tensor.dtype
    head = tensor.rows(0, min(_ROWS, tensor.shape[0]))
    with np.errstate(invalid="ignore"):
        held = (dtype for dtype in _NARROW if np.array_equal(to_float32(from_float32(head, dtype), dtype), head))
        return next(held, tensor.dtype)


def narrowed(values: Bits, source: str, target: str) -> Bits:
    """The values in ``target``; one that it does not hold exactly becomes NaN, which nothing draws."""
    if source == target:
        return values
    with np.errstate(invalid="ignore"):
        narrow = from_float32(values, target)
        odd = to_float32(narrow, target) != values
    narrow[odd] = from_float32(np.full(1, np.nan, np.float32), target)
    return narrow


# A raw checkpoint as a subject: shards as GPT-NeoX keeps them, methods and seed from its config, stored states.


_COMPUTED = ("inv_freq", "slopes", "_extra_state")  # the ends of names of what is computed rather than drawn
_METHODS = ("init_method", "output_layer_init_method", "init_method_std")
_CPU_ON_RANKS = (
    "use_cpu_initialization draws whole tensors and cuts them over the ranks, which is recomputed for one rank only"
)
_NO_WAY = "its initial weights cannot be explained here"


def raw_subjects(files: CheckpointFiles) -> Iterator[Subject]:
    """The subject of a raw checkpoint; weights are read when they are asked for.

    Without a training config there is one for every pair of init methods that the weights allow.

    Raises:
        CheckpointError: no checkpoint, a broken one, or one without an embedding.
        ConfigError: sizes missing in the config, or an init method that is not recomputed here.
    """
    checkpoint = RawCheckpoint.open(files, weights=False)
    options = config.merge(config.config_files(files), files.where)
    seed = options.get("seed", MAPPED["seed"]) if options else None
    subject = Subject(
        where=checkpoint.where,
        shards=raw_shards(checkpoint),
        unknown=tuple(_unknown(checkpoint.ranks[0])),
        layout=checkpoint.layout,
        stages=max(1, checkpoint.pipeline_parallel),
        iteration=checkpoint.state.iteration,
        seed=seed if isinstance(seed, int) else None,
        states=tuple(states.get(TRACKER) for states in stored_states(files)),
    )
    if not options:
        layers, hidden = layer_count(checkpoint.ranks[0]), subject.first.shape[1]
        yield from plausible_subjects(subject, layers, hidden, DEFAULTS[2:])
        return
    methods, scale = read_methods(options, checkpoint.where)
    if options.get("use_cpu_initialization") and subject.tensor_parallel > 1:
        subject = replace(subject, notes=(_CPU_ON_RANKS,))
    yield replace(subject, shards=tuple(with_methods(rank, methods, scale) for rank in subject.shards))


def raw_shards(checkpoint: RawCheckpoint) -> tuple[dict[str, Shard], ...]:
    """The drawn tensors of every rank in the order of drawing; their standard deviations are open.

    Raises:
        CheckpointError: no embedding, or a drawn tensor that is no matrix of floats.
    """
    names = in_order(checkpoint.ranks[0])
    if "embedding.weight" not in names:
        raise CheckpointError("no embedding, which is drawn first", checkpoint.where, "fetch the checkpoint again")
    for rank in checkpoint.ranks:
        for tensor in map(rank.__getitem__, names):
            if len(tensor.shape) != 2 or not tensor.elements or tensor.dtype not in VIEWS:
                what = f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}, and a matrix of floats is due"
                raise CheckpointError(what, f"{checkpoint.where}/{tensor.file}", "fetch the checkpoint again")
    return tuple({name: _raw_shard(checkpoint, rank[name]) for name in names} for rank in checkpoint.ranks)


def read_methods(options: Mapping[str, Any], where: str) -> tuple[Methods, Scale]:
    """The init methods of a config and the sizes that they depend on; the shape is left open.

    Raises:
        ConfigError: a size is absent, or a method is not recomputed here.
    """
    stated = [options.get(name) for name in _METHODS]
    init, output, sigma = (given or usual for given, usual in zip(stated, DEFAULTS, strict=True))
    if not isinstance(sigma, int | float):
        raise ConfigError(f"init_method_std is {sigma!r}, where a number is due", where, "mend the config")
    methods = Methods(str(init), str(output), float(sigma))
    if options.get("use_mup"):
        raise ConfigError("use_mup draws every weight a second time, by rules of its own", where, _NO_WAY)
    if methods.obstacle:
        raise ConfigError(methods.obstacle, where, _NO_WAY)
    layers, hidden = options.get("num_layers"), options.get("hidden_size")
    for size in (layers, hidden):
        if not isinstance(size, int) or size <= 0:
            raise ConfigError(f"num_layers is {layers!r} and hidden_size {hidden!r}", where, "mend the config")
    assert isinstance(layers, int)
    assert isinstance(hidden, int)
    return methods, Scale(layers, hidden, methods.sigma, ())


def _raw_shard(checkpoint: RawCheckpoint, tensor: RawTensor) -> Shard:
    read = partial(_rows, checkpoint, tensor)
    return Shard(tensor.name, tensor.name, tensor.shape, tensor.dtype, math.nan, read)


def _rows(checkpoint: RawCheckpoint, tensor: RawTensor, rows: int | None) -> Bits:
    return checkpoint.read(tensor, 0, rows)


def _unknown(tensors: Mapping[str, RawTensor]) -> list[str]:
    return sorted(
        name
        for name, tensor in tensors.items()
        if len(tensor.shape) > 1 and role(name) is None and not name.endswith(_COMPUTED)
    )


# A model in Hugging Face format: its tensors, the sizes that its config states, the tables that name its tensors.


CONFIG = "config.json"
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class HfModel:
    """The tensors of a model, and the sizes that its config states."""

    where: str
    tensors: Mapping[str, FileTensor]
    neox: bool
    layers: int
    tied: bool
    sigma: float
    sizes: Sizes
    heads: Heads

    def tables(self, legacy_mlp: bool) -> Tables:
        """The rules that made the model, biases and norms apart."""
        options = {"legacy_mlp": legacy_mlp, "attention_biases": False, "tied": self.tied, "parallel": True}
        return neox_tables(shared_norm=False, **options) if self.neox else llama_tables(**options)


def read_model(files: CheckpointFiles) -> HfModel:
    """The model's tensors and sizes; no weight is read.

    Raises:
        ConfigError: no config, another architecture, or sizes that these tensors cannot have.
        CheckpointError: a broken file.
    """
    config = _config(files)
    kind = config.get("model_type")
    if kind not in CLASSES:
        raise ConfigError(
            f"model_type is {kind!r}", f"{files.where}/{CONFIG}", f"it should be one of {', '.join(CLASSES)}"
        )
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    layers, hidden, count, intermediate, vocabulary = (_size(config, name, files.where) for name in names)
    groups = _size(config, "num_key_value_heads", files.where, count)
    tensors = file_tensors(files)
    if hidden % count or layers > len(tensors):
        what = f"{layers:,} layers, {hidden:,} wide, with {count:,} heads do not fit {len(tensors):,} tensors"
        raise ConfigError(what, f"{files.where}/{CONFIG}", "fetch the model again")
    heads = Heads(count, groups, hidden // count)
    neox = kind == GPT_NEOX
    sigma = config.get("initializer_range")
    return HfModel(
        where=files.where,
        tensors=tensors,
        neox=neox,
        layers=layers,
        tied=("embed_out.weight" if neox else "lm_head.weight") not in tensors,
        sigma=float(sigma) if isinstance(sigma, float) else DEFAULTS[2],
        sizes=Sizes(vocabulary, hidden, (count + 2 * groups) * heads.size, intermediate),
        heads=heads,
    )


def _size(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    number = config.get(name)
    number = default if number is None else number
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise ConfigError(
            f"{name} is {number!r}", f"{where}/{CONFIG}", "a positive number is due; fetch the config again"
        )
    return number


def _config(files: CheckpointFiles) -> dict[str, Any]:
    where = f"{files.where}/{CONFIG}"
    if CONFIG not in files.sizes or files.sizes[CONFIG] > _MAX_CONFIG:
        raise ConfigError("no config.json beside the weights", where, "fetch the config as well")
    try:
        config = json.loads(bytes(files.open(CONFIG).read(0, files.sizes[CONFIG])))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}", where, "fetch the config again") from error
    if not isinstance(config, dict):
        raise ConfigError("no JSON object", where, "fetch the config again")
    return config


TENSOR_PARALLEL = (1, 2, 4, 8)
_PADDING = 128  # gpt-neox pads a vocabulary to this times the ranks, unless make-vocab-size-divisible-by is another


def hf_subjects(files: CheckpointFiles) -> Iterator[Subject]:
    """Every way in which GPT-NeoX may have drawn the model: its version, sizes of tensor parallelism, init methods.

    Raises:
        ConfigError: no config, or not of an architecture that GPT-NeoX's models become.
        ConversionError: a tensor is missing or of another shape than the config makes it.
        CheckpointError: a broken file.
    """
    model = read_model(files)
    sigmas = tuple(dict.fromkeys((model.sigma, DEFAULTS[2])))
    for legacy_mlp in (False,) if model.neox else (False, True):
        for ranks in TENSOR_PARALLEL:
            if _divisible(model, ranks):
                shards = _cut(model, legacy_mlp, ranks)
                subject = Subject(where=model.where, shards=shards)
                yield from plausible_subjects(subject, model.layers, model.sizes.hidden, sigmas)


def _divisible(model: HfModel, ranks: int) -> bool:
    sizes = model.sizes
    shared = (model.heads.query, model.heads.key_value, sizes.intermediate, sizes.hidden, sizes.vocabulary)
    usual = sizes.vocabulary % _PADDING == 0
    return all(size % ranks == 0 for size in shared) and not (usual and sizes.vocabulary % (_PADDING * ranks))


def _cut(model: HfModel, legacy_mlp: bool, ranks: int) -> tuple[dict[str, Shard], ...]:
    """The drawn tensors of every rank, by canonical name in the order of drawing; their standard deviation is open."""
    rules: dict[str, list[tuple[str, Rule]]] = {}
    tables = model.tables(legacy_mlp)
    for rule in tables.outside:
        rules.setdefault(rule.neox, []).append((rule.hf, rule))
    for layer in range(model.layers):
        for rule in tables.layer:
            hf = tables.layer_prefix.format(i=layer) + rule.hf
            rules.setdefault(f"layers.{layer}.{rule.neox}", []).append((hf, rule))
    drawn = in_order(rules)
    return tuple({name: _hf_shard(model, name, rules[name], ranks, rank) for name in drawn} for rank in range(ranks))


def _hf_shard(model: HfModel, name: str, rules: list[tuple[str, Rule]], ranks: int, rank: int) -> Shard:
    merge, whole = rules[0][1].merge, model.sizes.shape(rules[0][1])
    shape = tuple(size // ranks if axis == merge.axis else size for axis, size in enumerate(whole))
    same = tuple(RawTensor(name, "", "", shape, (shape[1], 1), 0) for _ in range(ranks))
    blocks: list[tuple[FileTensor, Slice]] = []
    for hf, rule in rules:
        made = rule.merge.apply(same, model.heads)
        tensor = model.tensors.get(hf)
        if tensor is None or tensor.shape != made.shape:
            found = "missing" if tensor is None else f"{list(tensor.shape)}"
            what = f"{hf} is {found}, and the config makes it {list(made.shape)}"
            raise ConversionError(what, model.where, "fetch the model again")
        blocks.extend((tensor, part) for part in made.slices if part.rank == rank)
    shown = " + ".join(hf for hf, _ in rules)
    dtype = drawn_dtype(blocks[0][0])
    return Shard(name, shown, shape, dtype, math.nan, partial(_assembled, shape, dtype, blocks))


def _assembled(shape: tuple[int, ...], dtype: str, blocks: list[tuple[FileTensor, Slice]], rows: int | None) -> Bits:
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
