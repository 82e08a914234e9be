"""Which Hugging Face architecture has a network's equations, and whether the config has the sizes of the tensors.

Networks without a counterpart are refused with the reason. No weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.convert.rules import Rule, Tables, llama_tables, neox_tables
from publish.errors import ConfigError, ConversionError
from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, Network

GPT_NEOX, LLAMA, MISTRAL = "gpt_neox", "llama", "mistral"
CLASSES: Mapping[str, str] = {
    GPT_NEOX: "GPTNeoXForCausalLM",
    LLAMA: "LlamaForCausalLM",
    MISTRAL: "MistralForCausalLM",
}

# transformers activations.py, ACT2CLS of 4.38 and of 5.23. PyTorch's tanh GELU is GPT-NeoX's fused one.
HIDDEN_ACT: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
_LEGACY_MLP = ("mlp.dense_h_to_4h.weight", "mlp.w1.weight")
_TRANSFORMER_ENGINE = ("attention.qkv.weight", "attention.proj.weight", "mlp.fc1_weight", "mlp.layer_norm_weight")
_NO_COUNTERPART = "no Hugging Face architecture has these equations; this model cannot be released in that format"
_LAYER = re.compile(r"layers\.(\d+)\.")
_DOWN = ("mlp.linear2.weight", "mlp.dense_4h_to_h.weight", "mlp.w2.weight")
_FIX = "the config belongs to another checkpoint or states a wrong number: use the YAML that the run was started with"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Hugging Face architecture, and the tables of rules that convert to it."""

    name: str
    attention_biases: bool
    tables: Tables


def choose_architecture(
    network: Network, names: frozenset[str], where: str, requested: str | None = None
) -> Architecture:
    """The architecture for ``network``, whose first layer has the tensors ``names`` (without ``layers.0.``).

    ``requested`` overrides the choice between Llama and Mistral; the plan has a note about it.

    Raises:
        ConfigError: no architecture has these equations, or ``requested`` is of another kind.
    """
    if reason := next(unsupported(network, names), None):
        raise ConfigError(reason, where, _NO_COUNTERPART)
    name = matching_architecture(network)
    if requested is not None and requested != name:
        if GPT_NEOX in (name, requested) or requested not in CLASSES:
            raise ConfigError(
                f"this is a {name} network, not {requested!r}", where, f"leave out --architecture {requested}"
            )
        name = requested
    biases = "attention.query_key_value.bias" in names
    legacy = not names.isdisjoint(_LEGACY_MLP)
    if network.norm == "layernorm":
        tables = neox_tables(
            legacy_mlp=legacy,
            attention_biases=biases,
            shared_norm=network.shared_norm,
            tied=network.tied,
            parallel=network.parallel_residual,
        )
    else:
        tables = llama_tables(
            legacy_mlp=legacy, attention_biases=biases, tied=network.tied, parallel=network.parallel_residual
        )
    return Architecture(name, biases, tables)


def matching_architecture(network: Network) -> str:
    """The architecture that has the network's equations."""
    if network.norm == "layernorm":
        return GPT_NEOX
    return LLAMA if network.sliding_window is None else MISTRAL


def unsupported(network: Network, names: frozenset[str]) -> Iterator[str]:
    """Every reason why no architecture has these equations."""
    if found := sorted(names & set(_TRANSFORMER_ENGINE)):
        yield (
            f"{found[0]}: the equations of fused TransformerEngine modules (te_mha, te_layernorm_mlp: tanh GELU, a "
            "fixed epsilon) differ, and were never checked against GPT-NeoX's logits"
        )
    if "attention.alibi_embed.slopes" in names:
        yield "pos-emb alibi has no counterpart in GPTNeoXForCausalLM or LlamaForCausalLM"
    if network.rotated < 2 or network.rotated % 2:
        rotated = f"{network.rotated} of a head's {network.head_size} dimensions"
        yield f"rotary-pct {network.rotary_fraction:g} rotates {rotated}: dimensions are rotated in pairs"
    if network.activation not in HIDDEN_ACT:
        yield f"transformers has no activation {network.activation!r}"
    yield from (
        _unsupported_by_neox(network, names) if network.norm == "layernorm" else _unsupported_by_llama(network, names)
    )


def _unsupported_by_neox(network: Network, names: frozenset[str]) -> Iterator[str]:
    if network.gated:
        yield f"layernorm with a gated MLP ({network.activation}): GPTNeoXForCausalLM has no gate, Llama no layernorm"
    if network.kv_heads != network.heads:
        yield f"layernorm with num-kv-heads {network.kv_heads} of {network.heads}: GPTNeoXForCausalLM has no groups"
    if network.sliding_window is not None:
        yield "layernorm with sliding-window-width: GPTNeoXForCausalLM has no window"
    if not any(name.startswith("mlp.") and name.endswith("bias") for name in names):
        yield "use-bias-in-mlp: false: GPTNeoXForCausalLM's MLP always has biases"


def _unsupported_by_llama(network: Network, names: frozenset[str]) -> Iterator[str]:
    if network.norm != "rmsnorm":
        yield f"norm {network.norm!r} has no counterpart in transformers"
    if not network.gated:
        yield f"rmsnorm without a gated MLP (activation {network.activation}): Llama's MLP is gated"
    if network.parallel_residual:
        yield "rmsnorm with gpt-j-residual: Llama's residual is serial"
    if network.rotary_fraction != 1:
        yield f"rmsnorm with rotary-pct {network.rotary_fraction}: Llama rotates the whole head"
    if any(name.startswith("mlp.") and name.endswith("bias") for name in names):
        yield "rmsnorm with biases in the MLP: transformers 4.38 has none in Llama"
    if network.sliding_window is not None and "attention.query_key_value.bias" in names:
        yield "sliding-window-width with biases in attention: MistralForCausalLM has none"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The dimensions of the model merged over all ranks, in the names that rules use."""

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


def layer_count(names: Mapping[str, RawTensor]) -> int:
    """The number of layers in the names of the tensors."""
    return len({found[1] for name in names if (found := _LAYER.match(name))})


def measure_sizes(checkpoint: RawCheckpoint, config: NeoxConfig) -> Sizes:
    """The sizes of the tensors, which must be those of the config. No weight is read.

    Raises:
        ConversionError: there is no embedding or no MLP.
        ConfigError: a number in the config contradicts the tensors, or the checkpoint's own ``args``.
    """
    network, first = config.network, checkpoint.ranks[0]
    embedding = first.get("embedding.weight")
    down = next((first[name] for local in _DOWN if (name := f"layers.0.{local}") in first), None)
    if embedding is None or len(embedding.shape) != 2 or down is None or len(down.shape) != 2:
        missing = "embedding.weight" if embedding is None or len(embedding.shape) != 2 else "layers.0.mlp"
        raise ConversionError(f"{missing} is missing or not a matrix", checkpoint.where, "fetch the checkpoint again")
    ranks = checkpoint.tensor_parallel
    found = Sizes(
        vocabulary=embedding.shape[0] * ranks,
        hidden=embedding.shape[1],
        projection=(network.heads + 2 * network.kv_heads) * network.head_size,
        intermediate=down.shape[1] * ranks,
    )
    for name, stated, actual in _comparisons(checkpoint, config, found):
        if stated != actual:
            raise ConfigError(f"{name} is {stated} in the config but {actual} in the checkpoint", config.where, _FIX)
    allowed = intermediate_sizes(config)
    if found.intermediate not in allowed:
        stated, widths = config.get("intermediate_size"), " or ".join(map(str, sorted(allowed)))
        raise ConfigError(
            f"intermediate_size {stated or '(not given)'} makes the MLP {widths} wide, "
            f"but it is {found.intermediate} wide in the checkpoint",
            config.where,
            _FIX,
        )
    return found


def _comparisons(checkpoint: RawCheckpoint, config: NeoxConfig, found: Sizes) -> Iterator[tuple[str, Any, Any]]:
    """(option, the config's value, the checkpoint's value) of all that both state."""
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


def intermediate_sizes(config: NeoxConfig) -> frozenset[int]:
    """The widths of the MLP that the config can mean, over the versions of GPT-NeoX.

    gpt-neox transformer.py, ParallelMLP (ea7aefd8): four times the hidden size unless given; a gated MLP keeps a third
    of the number; rounded up to ``mlp_multiple_of``. ParallelLLaMAMLP of 2023 to 2024: the number given, else two
    thirds of four times the hidden size rounded up to 256.
    """
    hidden, multiple = config.network.hidden, int(config.get("mlp_multiple_of") or 1)
    factor = config.get("expansion_factor") or 4
    stated = int(config.get("intermediate_size") or factor * hidden)
    if not config.network.gated:
        return frozenset({stated, _round_up(stated, multiple)})
    two_thirds = int(stated * 2 / 3)
    return frozenset(
        {
            _round_up(two_thirds // 2, multiple),
            _round_up(two_thirds, 256),
            _round_up(two_thirds, multiple),
            stated,
            _round_up(stated, 256),
        }
    )


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
