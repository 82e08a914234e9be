"""A run as its training config has it and as measured: what all cards of the run share.

A value that the config lacks is None, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from publish.records.manifest import Note

CONFIG, DEFAULT = "config", "GPT-NeoX default"

# gpt-neox megatron/neox_arguments/neox_args.py: the same in the Pythia era and in 2026.
DEFAULTS: Mapping[str, Any] = {
    "seed": 1234,
    "warmup": 0.01,
    "lr_decay_style": "linear",
    "rotary_pct": 1.0,
    "rotary_emb_base": 10000,
    "init_method": "normal",
    "output_layer_init_method": "scaled_normal",
}


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """A run as configured. ``defaults`` names the options that the config leaves to GPT-NeoX.

    ``precision`` is ``fp16``, ``bf16`` or what the option of that name says. Of fp16, ``loss_scale`` is the fixed one;
    where it is None the scale is dynamic and starts at 2 to the ``initial_scale_power``.
    """

    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    context: int | None
    sequence: int | None
    rotary_fraction: float | None
    rotary_base: float | None
    optimizer: str | None
    learning_rate: float | None
    betas: tuple[float, ...]
    epsilon: float | None
    min_learning_rate: float | None
    decay_style: str
    decay_steps: int | None
    warmup: float | None
    steps: int | None
    micro_batch: int | None
    global_batch: int | None
    weight_decay: float | None
    gradient_clipping: float | None
    precision: str | None
    loss_scale: float | None
    initial_scale_power: int | None
    init_method: str
    output_init_method: str
    seed: int | None
    data_paths: tuple[str, ...]
    vocab_file: str | None
    defaults: tuple[str, ...]

    def source(self, *options: str) -> str:
        """Where the values of ``options`` come from: the config, GPT-NeoX's defaults, or both."""
        from_default = [option in self.defaults for option in options]
        if all(from_default):
            return DEFAULT
        return f"{CONFIG}, {DEFAULT}" if any(from_default) else CONFIG

    @property
    def warmup_steps(self) -> int | None:
        """Steps of warm-up: GPT-NeoX takes a fraction of the decay's length, which is training's if not given."""
        length = self.decay_steps or self.steps
        return None if self.warmup is None or length is None else round(self.warmup * length)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the run, from the tensors and the checkpoint. ``architecture`` is transformers' model type."""

    architecture: str
    dtype: str
    parameters: int
    embedding_parameters: int  # input and output embedding
    vocabulary: int
    tokens_per_step: int | None
    data_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run as configured and as measured; ``deviations`` are what the conversion changes."""

    config: ConfigFacts
    sizes: Sizes
    deviations: tuple[Note, ...] = ()


def config_facts(options: Mapping[str, Any]) -> ConfigFacts:
    """The facts in a normalised NeoX config (option names with underscores, values as the YAML has them)."""
    given = {name: value for name, value in options.items() if value is not None}
    defaults = tuple(name for name in DEFAULTS if name not in given)
    values = {**DEFAULTS, **given}
    kind, params = _optimizer(given)
    positions = values.get("pos_emb") == "rotary"
    return ConfigFacts(
        layers=_whole(values.get("num_layers")),
        hidden=_whole(values.get("hidden_size")),
        heads=_whole(values.get("num_attention_heads")),
        kv_heads=_whole(values.get("num_kv_heads")),
        context=_whole(values.get("max_position_embeddings")),
        sequence=_whole(values.get("seq_length")),
        rotary_fraction=_number(values["rotary_pct"]) if positions else None,
        rotary_base=_number(values["rotary_emb_base"]) if positions else None,
        optimizer=kind,
        learning_rate=_number(params.get("lr", given.get("lr"))),
        betas=_numbers(params.get("betas")),
        epsilon=_number(params.get("eps")),
        min_learning_rate=_number(values.get("min_lr")),
        decay_style=str(values["lr_decay_style"]),
        decay_steps=_whole(values.get("lr_decay_iters")),
        warmup=_number(values["warmup"]),
        steps=_whole(values.get("train_iters")),
        micro_batch=_whole(values.get("train_micro_batch_size_per_gpu", values.get("batch_size"))),
        global_batch=_whole(values.get("train_batch_size")),
        weight_decay=_number(values.get("weight_decay")),
        gradient_clipping=_number(values.get("gradient_clipping")),
        **_precision(values),
        init_method=str(values["init_method"]),
        output_init_method=str(values["output_layer_init_method"]),
        seed=_whole(values["seed"]),
        data_paths=tuple(_texts(values.get("train_data_paths", values.get("data_path")))),
        vocab_file=_text(values.get("vocab_file")),
        defaults=defaults,
    )


def _optimizer(options: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    optimizer = options.get("optimizer")
    if not isinstance(optimizer, Mapping):
        return None, {}
    params = optimizer.get("params")
    return _text(optimizer.get("type")), params if isinstance(params, Mapping) else {}


def _precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """fp16 with its loss scaling, bf16, or the ``precision`` option."""
    half, brains = options.get("fp16"), (options.get("bf16"), options.get("bfloat16"))
    if isinstance(half, Mapping) and (half.get("enabled") or half.get("fp16")):
        fixed, power = _number(half.get("loss_scale")) or None, _whole(half.get("initial_scale_power"))
        return {"precision": "fp16", "loss_scale": fixed, "initial_scale_power": power}
    is_bf16 = any(brain is True or (isinstance(brain, Mapping) and brain.get("enabled")) for brain in brains)
    precision = "bf16" if is_bf16 else _text(options.get("precision"))
    return {"precision": precision, "loss_scale": None, "initial_scale_power": None}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    """A number; YAML reads ``1e-8`` (no point) as text, which GPT-NeoX takes as a number too."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(number for number in map(_number, value) if number is not None)


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, list | tuple):
        return map(str, value)
    return () if value is None else (str(value),)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
