"""A training config: its options, checked against the table, and the network they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publish.errors import ConfigError
from publish.neox import yamlfile
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.network import Network
from publish.neox.options import HARMLESS, MAPPED, REFUSED

_NO_COUNTERPART = "no Hugging Face model computes this; the checkpoint can only be used with GPT-NeoX"
_GATED = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "bilinear": "linear", "glu": "sigmoid"}


@dataclass(frozen=True)
class NeoxConfig:
    """The options of one run, names with underscores, values as the YAML has them."""

    options: Mapping[str, Any]
    where: str
    files: tuple[str, ...]
    network: Network

    def get(self, name: str) -> Any:
        """The option's value, else GPT-NeoX's default."""
        value = self.options.get(name)
        return MAPPED.get(name) if value is None else value

    @property
    def vocab_file(self) -> str | None:
        value = self.get("vocab_file")
        return value if isinstance(value, str) else None


def read_config(checkpoint: RawCheckpoint) -> NeoxConfig:
    """The config of ``checkpoint``, every option known, the network expressible so far as options tell.

    Raises:
        ConfigError: no YAML, invalid YAML, unknown or refused options, sizes missing or not numbers.
    """
    texts = yamlfile.config_files(checkpoint.files)
    if not texts:
        raise ConfigError(
            "no training config: neither configs/*.yml nor a YAML file at the root",
            checkpoint.where,
            "put the YAML that the run was started with into configs/",
        )
    options = yamlfile.merge(texts, checkpoint.where)
    where = f"{checkpoint.where}/{', '.join(sorted(texts))}"
    check_options(options, where)
    return NeoxConfig(options, where, tuple(sorted(texts)), network_of(options, checkpoint, where))


def check_options(options: Mapping[str, Any], where: str) -> None:
    """Refuse what the table does not know or no Hugging Face architecture expresses.

    Raises:
        ConfigError: names the option and the reason.
    """
    for name, value in options.items():
        if name in REFUSED and value not in REFUSED[name].harmless:
            raise ConfigError(
                f"{name}: {value!r} cannot be converted: {REFUSED[name].reason}",
                where,
                _NO_COUNTERPART,
            )
        if name not in MAPPED and name not in HARMLESS and name not in REFUSED:
            raise ConfigError(
                f"{name} is no option that this tool knows, so it cannot tell whether the forward pass depends on it",
                where,
                "check the spelling; if GPT-NeoX has the option, add it to publish/neox/options.py with a reason",
            )


def network_of(options: Mapping[str, Any], checkpoint: RawCheckpoint, where: str) -> Network:
    """The network that ``options`` describe; tensors tell only what no option does (the RMSNorm's era).

    Raises:
        ConfigError: a size is absent or impossible, or no Hugging Face architecture has these equations.
    """
    reader = _Reader(options, where)
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    if hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is no multiple of {heads} heads", where, "mend the config")
    reader.choice("pos_emb", ("rotary",), "only rotary positions have a Hugging Face counterpart here")
    norm = reader.choice("norm", ("layernorm", "rmsnorm"), "only layernorm and rmsnorm have a counterpart")
    reader.attention_types()
    activation, gated = reader.activation()
    for name in ("intermediate_size", "mlp_multiple_of", "padded_vocab_size", "make_vocab_size_divisible_by"):
        reader.size_if_given(name)
    reader.number_if_given("expansion_factor")
    parallel = reader.flag("gpt_j_residual")
    if parallel and not reader.flag("use_bias_in_mlp"):
        raise ConfigError(
            "gpt_j_residual without use_bias_in_mlp: GPT-NeoX then leaves the attention out of the sum",
            where,
            _NO_COUNTERPART,
        )
    return Network(
        layers=reader.size("num_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=reader.size("num_kv_heads", heads),
        context=reader.size("max_position_embeddings", options.get("seq_length")),
        norm=norm,
        norm_epsilon=reader.number("layernorm_epsilon" if norm == "layernorm" else "rms_norm_epsilon"),
        epsilon_outside_root=norm == "rmsnorm" and _before_2025(checkpoint),
        activation=activation,
        gated=gated,
        parallel_residual=parallel,
        shared_norm=parallel and reader.flag("gpt_j_tied"),
        tied=not reader.flag("no_weight_tying"),
        rotary_fraction=reader.number("rotary_pct"),
        rotary_base=reader.number("rotary_emb_base"),
        sliding_window=reader.size_if_given("sliding_window_width"),
        initializer_range=reader.number("init_method_std"),
    )


def _before_2025(checkpoint: RawCheckpoint) -> bool:
    """Whether the MLP's names are those from before ``linear1`` and ``linear2`` (2023 to 2024)."""
    return any(".mlp.w1." in name or ".mlp.dense_h_to_4h." in name for name in checkpoint.ranks[0])


@dataclass(frozen=True, slots=True)
class _Reader:
    """Options by kind, each with an error that names it."""

    options: Mapping[str, Any]
    where: str

    def _value(self, name: str) -> Any:
        value = self.options.get(name)
        return MAPPED[name] if value is None else value

    def size(self, name: str, default: Any = None) -> int:
        value = self.options.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise ConfigError(f"{name} is {value!r}, where a positive number is due", self.where, "mend the config")
        return value

    def size_if_given(self, name: str) -> int | None:
        return None if self.options.get(name) is None else self.size(name)

    def number_if_given(self, name: str) -> float | None:
        return None if self.options.get(name) is None else self.number(name)

    def number(self, name: str) -> float:
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise ConfigError(f"{name} is {value!r}, where a number is due", self.where, "mend the config")
        return value

    def flag(self, name: str) -> bool:
        value = self._value(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}, where true or false is due", self.where, "mend the config")
        return value

    def choice(self, name: str, allowed: tuple[str, ...], reason: str) -> str:
        value = self._value(name)
        if value not in allowed:
            raise ConfigError(f"{name}: {value!r} cannot be converted: {reason}", self.where, _NO_COUNTERPART)
        return str(value)

    def activation(self) -> tuple[str, bool]:
        """The activation's name, and whether the MLP is gated (``mlp_type: llama`` gates any activation)."""
        name = str(self._value("activation"))
        if self._value("mlp_type") == "llama":
            return _GATED.get(name, name), True
        if name in _GATED:
            return _GATED[name], True
        if name == "gelu" and self.flag("bias_gelu_fusion"):
            return "gelu_tanh", False
        return {"swish": "silu"}.get(name, name), False

    def attention_types(self) -> None:
        """Refuse attention other than full causal attention (gmlp, mamba, rwkv, sparse kinds)."""
        value = self.options.get("attention_config")
        for entry in value if isinstance(value, list) else []:
            kinds = entry[0] if isinstance(entry, list) and entry and isinstance(entry[0], list) else [entry]
            for kind in kinds:
                if kind not in ("global", "flash"):
                    raise ConfigError(
                        f"attention_config: {kind!r} cannot be converted: only full attention has a counterpart",
                        self.where,
                        _NO_COUNTERPART,
                    )
