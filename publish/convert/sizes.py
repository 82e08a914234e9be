"""The sizes that config and tensors must agree on, checked before a weight is read: both values in every error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.convert.merge import Heads
from publish.convert.rules import Rule
from publish.errors import ConfigError, ConversionError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, Network

_LAYER = re.compile(r"layers\.(\d+)\.")
_DOWN = ("mlp.linear2.weight", "mlp.dense_4h_to_h.weight", "mlp.w2.weight")
_MEND = "the config is not this checkpoint's, or states a wrong number: use the YAML that the run was started with"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The merged model's dimensions, by the names that the rules use."""

    vocabulary: int
    hidden: int
    projection: int
    intermediate: int

    def shape(self, rule: Rule) -> tuple[int, ...]:
        """The shape of the merged GPT-NeoX tensor of ``rule``."""
        return tuple(
            2 * self.intermediate if dimension == "up_and_gate" else int(getattr(self, dimension))
            for dimension in rule.shape
        )


def heads_of(network: Network) -> Heads:
    return Heads(network.heads, network.kv_heads, network.head_size)


def layer_count(names: Mapping[str, RawTensor]) -> int:
    """Layers that the tensors' names show."""
    return len({found[1] for name in names if (found := _LAYER.match(name))})


def measure(checkpoint: RawCheckpoint, config: NeoxConfig) -> Sizes:
    """The sizes, taken from the tensors and equal to the config's.

    Raises:
        ConversionError: no embedding or no MLP.
        ConfigError: a number of the config contradicts the tensors, or the checkpoint's own ``args``.
    """
    network, first = config.network, checkpoint.ranks[0]
    embedding = first.get("embedding.weight")
    down = next((first[name] for local in _DOWN if (name := f"layers.0.{local}") in first), None)
    if embedding is None or len(embedding.shape) != 2 or down is None or len(down.shape) != 2:
        missing = "embedding.weight" if embedding is None or len(embedding.shape) != 2 else "layers.0.mlp"
        raise ConversionError(f"{missing} is missing or no matrix", checkpoint.where, "fetch the checkpoint again")
    ranks = checkpoint.tensor_parallel
    found = Sizes(
        vocabulary=embedding.shape[0] * ranks,
        hidden=embedding.shape[1],
        projection=(network.heads + 2 * network.kv_heads) * network.head_size,
        intermediate=down.shape[1] * ranks,
    )
    for name, stated, actual in _comparisons(checkpoint, config, found):
        if stated != actual:
            raise ConfigError(f"{name} is {stated} in the config and {actual} in the checkpoint", config.where, _MEND)
    _check_intermediate(config, found.intermediate)
    return found


def _comparisons(checkpoint: RawCheckpoint, config: NeoxConfig, found: Sizes) -> Iterator[tuple[str, Any, Any]]:
    """(option, the config's value, the checkpoint's value)."""
    network, args, first = config.network, checkpoint.state.args, checkpoint.ranks[0]
    yield "num_layers", network.layers, layer_count(first)
    yield "hidden_size", network.hidden, found.hidden
    for name, stated in (
        ("num_layers", network.layers),
        ("hidden_size", network.hidden),
        ("num_attention_heads", network.heads),
        ("max_position_embeddings", network.context),
    ):
        if args.get(name) is not None:
            yield name, stated, args[name]
    for source in (config.options, args):
        if source.get("padded_vocab_size") is not None:
            yield "padded_vocab_size", source["padded_vocab_size"], found.vocabulary
    biases = config.options.get("use_bias_in_attn_linear")
    if biases is not None:
        yield "use_bias_in_attn_linear", biases, "layers.0.attention.query_key_value.bias" in first
    frequencies = first.get("layers.0.attention.rotary_emb.inv_freq")
    if frequencies is not None:  # gpt-neox positional_embeddings.py: one per pair of rotated dimensions
        yield "rotary frequencies (hidden_size, heads, rotary_pct)", -(-network.rotated // 2), frequencies.elements


def _check_intermediate(config: NeoxConfig, actual: int) -> None:
    allowed = intermediate_sizes(config)
    if actual not in allowed:
        stated = config.get("intermediate_size")
        raise ConfigError(
            f"intermediate_size {stated or '(not given)'} makes the MLP {' or '.join(map(str, sorted(allowed)))} wide, "
            f"and it is {actual} in the checkpoint",
            config.where,
            _MEND,
        )


def intermediate_sizes(config: NeoxConfig) -> frozenset[int]:
    """The widths of the MLP that the config can mean, over the eras.

    gpt-neox transformer.py, ParallelMLP (ea7aefd8): four times the hidden size unless given; a gated MLP keeps a third
    of the number; rounded up to ``mlp_multiple_of``. ParallelLLaMAMLP of 2023 to 2024: the number given, else two
    thirds of four times the hidden size rounded up to 256.
    """
    hidden, multiple = config.network.hidden, int(config.get("mlp_multiple_of") or 1)
    factor = config.get("expansion_factor") or 4
    stated = int(config.get("intermediate_size") or factor * hidden)
    if not config.network.gated:
        return frozenset({stated, _up(stated, multiple)})
    two_thirds = int(stated * 2 / 3)
    return frozenset(
        {_up(two_thirds // 2, multiple), _up(two_thirds, 256), _up(two_thirds, multiple), stated, _up(stated, 256)}
    )


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
