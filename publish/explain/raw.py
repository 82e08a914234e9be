"""A raw checkpoint as a subject: shards as GPT-NeoX keeps them, methods and seed from its config, stored states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from publish.convert.dtypes import VIEWS
from publish.convert.sizes import layer_count
from publish.errors import CheckpointError, ConfigError
from publish.explain.construction import in_order, role
from publish.explain.methods import DEFAULTS, Methods, Scale
from publish.explain.plausible import plausible_subjects
from publish.explain.subject import Bits, Shard, Subject, with_methods
from publish.neox import yamlfile
from publish.neox.checkpoint import RawCheckpoint, RawTensor
from publish.neox.options import MAPPED
from publish.neox.randomstate import TRACKER, stored_states
from publish.source.files import CheckpointFiles

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
    options = yamlfile.merge(yamlfile.config_files(files), files.where)
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
    return tuple({name: _shard(checkpoint, rank[name]) for name in names} for rank in checkpoint.ranks)


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


def _shard(checkpoint: RawCheckpoint, tensor: RawTensor) -> Shard:
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
