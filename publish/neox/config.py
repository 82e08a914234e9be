"""A training config: its options, checked against the table, and the network they describe."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from publish.errors import ConfigError
from publish.neox.options import HARMLESS, MAPPED, REFUSED
from publish.sources.files import CheckpointFiles

if TYPE_CHECKING:
    from publish.neox.checkpoint import RawCheckpoint

# What the forward pass of a GPT-NeoX model depends on.


@dataclass(frozen=True, slots=True)
class Network:
    """A network's shape and equations, from its training config.

    ``sliding_window`` is GPT-NeoX's own number w: a query attends to itself and the w positions before it.
    ``epsilon_outside_root`` is the RMSNorm of gpt-neox before 4c9f1081 (May 2025): x / (rms + eps).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    context: int
    norm: str  # layernorm, rmsnorm
    norm_epsilon: float
    epsilon_outside_root: bool
    activation: str  # gelu, gelu_tanh, relu, silu, ...
    gated: bool
    parallel_residual: bool
    shared_norm: bool
    tied: bool
    rotary_fraction: float
    rotary_base: float
    sliding_window: int | None
    initializer_range: float

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def rotated(self) -> int:
        """Dimensions of a head that rotary positions turn (gpt-neox ``transformer.py``, ParallelSelfAttention)."""
        return self.head_size if self.rotary_fraction == 1 else int(self.head_size * self.rotary_fraction)


# The YAML files that together are a training config: read, checked for contradictions, merged.


_MAX_BYTES = 1 << 18


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which also reads ``1e-8`` as a number, as GPT-NeoX's users mean it, and refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "aliases are not used in training configs", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = normal(str(key.value))
            if name in seen:
                raise yaml.MarkedYAMLError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def normal(name: str) -> str:
    """An option's name with underscores."""
    return name.strip().replace("-", "_")


@functools.lru_cache(maxsize=32)
def load(text: bytes, where: str) -> Mapping[str, Any]:
    """One YAML file's options, names with underscores.

    Raises:
        ConfigError: not valid YAML (with line and column), no mapping, a key twice.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"a config of {len(text):,} bytes", where, "a training config is a few kilobytes")
    try:
        tree = yaml.load(text.decode("utf-8"), Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        spot = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(
            f"not valid YAML: {error.problem}",
            spot,
            "mend that line (a missing comma in the line above is usual)",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {error}", where, "mend the file") from error
    if not isinstance(tree, dict):
        raise ConfigError("no options in this file", where, "a training config is a mapping of options")
    return MappingProxyType({normal(str(name)): value for name, value in tree.items()})


def config_files(files: CheckpointFiles) -> dict[str, bytes]:
    """The YAML files of a checkpoint: those in ``configs/``, else those at its root."""
    yamls = [name for name in files.sizes if name.endswith((".yml", ".yaml"))]
    inside = [name for name in yamls if name.startswith("configs/") and name.count("/") == 1]
    chosen = inside or [name for name in yamls if "/" not in name]
    return {name: bytes(files.open(name).read(0, min(files.sizes[name], _MAX_BYTES + 1))) for name in chosen}


def merge(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """The options of all ``files`` together.

    Raises:
        ConfigError: as :func:`load`, or two files that give one option different values.
    """
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name in sorted(files):
        for option, value in load(files[name], name).items():
            if option in merged and merged[option] != value:
                raise ConfigError(
                    f"{option} is {merged[option]!r} in {origin[option]} and {value!r} in {name}",
                    where,
                    "keep the files of one run only",
                )
            merged[option], origin[option] = value, name
    return merged


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
    texts = config_files(checkpoint.files)
    if not texts:
        raise ConfigError(
            "no training config: neither configs/*.yml nor a YAML file at the root",
            checkpoint.where,
            "put the YAML that the run was started with into configs/",
        )
    options = merge(texts, checkpoint.where)
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
