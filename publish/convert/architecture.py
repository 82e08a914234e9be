"""Which Hugging Face architecture has a network's equations; the others are refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from publish.convert.rules import Tables, llama_tables, neox_tables
from publish.errors import ConfigError
from publish.neox.config import Network

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
_ERAS = {"mlp.linear1.weight": "2026", "mlp.dense_h_to_4h.weight": "2023", "mlp.w1.weight": "2023"}
_TRANSFORMER_ENGINE = ("attention.qkv.weight", "attention.proj.weight", "mlp.fc1_weight", "mlp.layer_norm_weight")
_NO_COUNTERPART = "no Hugging Face architecture has these equations; it cannot be released in that format"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Hugging Face architecture and the tables that lead to it. ``era``: 2023 or 2026, by the MLP's names."""

    name: str
    era: str
    attention_biases: bool
    tables: Tables


def choose_architecture(network: Network, names: frozenset[str], where: str, wanted: str | None = None) -> Architecture:
    """The architecture for ``network``, whose first layer holds the tensors ``names`` (without ``layers.0.``).

    ``wanted`` overrides the choice between Llama and Mistral; the caller warns.

    Raises:
        ConfigError: no architecture has these equations, or ``wanted`` is of another kind.
    """
    if reason := next(refusals(network, names), None):
        raise ConfigError(reason, where, _NO_COUNTERPART)
    name = natural_name(network)
    if wanted is not None and wanted != name:
        if GPT_NEOX in (name, wanted) or wanted not in CLASSES:
            raise ConfigError(f"this is a {name} network, not {wanted!r}", where, f"leave out --architecture {wanted}")
        name = wanted
    era = next((era for tensor, era in _ERAS.items() if tensor in names), "2026")
    biases = "attention.query_key_value.bias" in names
    return Architecture(name, era, biases, _tables(network, era, biases))


def natural_name(network: Network) -> str:
    """The architecture that has the network's equations."""
    if network.norm == "layernorm":
        return GPT_NEOX
    return LLAMA if network.sliding_window is None else MISTRAL


def _tables(network: Network, era: str, biases: bool) -> Tables:
    if network.norm == "layernorm":
        return neox_tables(
            era=era,
            attention_biases=biases,
            shared_norm=network.shared_norm,
            tied=network.tied,
            parallel=network.parallel_residual,
        )
    return llama_tables(era=era, attention_biases=biases, tied=network.tied, parallel=network.parallel_residual)


def refusals(network: Network, names: frozenset[str]) -> Iterator[str]:
    """Every reason why no architecture has these equations."""
    if found := sorted(names & set(_TRANSFORMER_ENGINE)):
        yield (
            f"{found[0]}: fused TransformerEngine modules (te_mha, te_layernorm_mlp) have equations of their own "
            "(tanh GELU, a fixed epsilon), which were never checked against GPT-NeoX's logits"
        )
    if "attention.alibi_embed.slopes" in names:
        yield "pos-emb alibi has no counterpart in GPTNeoXForCausalLM or LlamaForCausalLM"
    if network.rotated < 2 or network.rotated % 2:
        turned = f"{network.rotated} of a head's {network.head_size} dimensions"
        yield f"rotary-pct {network.rotary_fraction:g} turns {turned}: dimensions are turned in pairs"
    if network.activation not in HIDDEN_ACT:
        yield f"activation {network.activation!r} is none that transformers knows"
    yield from _neox_refusals(network, names) if network.norm == "layernorm" else _llama_refusals(network, names)


def _neox_refusals(network: Network, names: frozenset[str]) -> Iterator[str]:
    if network.gated:
        yield f"layernorm with a gated MLP ({network.activation}): GPTNeoXForCausalLM has no gate, Llama no layernorm"
    if network.kv_heads != network.heads:
        yield f"layernorm with num-kv-heads {network.kv_heads} of {network.heads}: GPTNeoXForCausalLM groups no heads"
    if network.sliding_window is not None:
        yield "layernorm with sliding-window-width: GPTNeoXForCausalLM has no window"
    if not any(name.startswith("mlp.") and name.endswith("bias") for name in names):
        yield "use-bias-in-mlp: false: GPTNeoXForCausalLM's MLP always has biases"


def _llama_refusals(network: Network, names: frozenset[str]) -> Iterator[str]:
    if network.norm != "rmsnorm":
        yield f"norm {network.norm!r} has no counterpart"
    if not network.gated:
        yield f"rmsnorm without a gated MLP (activation {network.activation}): Llama's MLP is gated"
    if network.parallel_residual:
        yield "rmsnorm with gpt-j-residual: Llama's residual is serial"
    if network.rotary_fraction != 1:
        yield f"rmsnorm with rotary-pct {network.rotary_fraction}: Llama rotates the whole head"
    if any(name.startswith("mlp.") and name.endswith("bias") for name in names):
        yield "rmsnorm with biases in the MLP: transformers 4.38 knows none in Llama"
    if network.sliding_window is not None and "attention.query_key_value.bias" in names:
        yield "sliding-window-width with biases in attention: MistralForCausalLM has none"
