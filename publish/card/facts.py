"""Everything a card states, gathered before it is written. Missing facts are None, and their line is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the details table: what, its value, and where the value comes from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate found on one step, or (in the suite's card) on how many steps."""

    name: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file of a branch."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StepLine:
    """One line of the table of checkpoints."""

    step: int
    branch: str
    tokens: int | None
    weights: str  # sha256 of the first weight file
    source_commit: str | None


@dataclass(frozen=True, slots=True)
class Text:
    """What the maintainer says of the model."""

    title: str
    license: str
    language: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step's card."""

    repo: str
    branch: str
    step: int
    steps: tuple[int, ...]
    text: Text
    details: tuple[Fact, ...]
    training: tuple[Fact, ...]
    tokens: int | None
    has_tokenizer: bool
    files: tuple[FileFact, ...]
    gates: tuple[Gate, ...]
    source: str
    source_commit: str | None
    source_files: tuple[str, ...]
    converter: str
    deviations: tuple[str, ...] = ()

    @property
    def previous(self) -> int | None:
        """The step before this one in the release."""
        return max((step for step in self.steps if step < self.step), default=None)

    @property
    def following(self) -> int | None:
        """The step after this one in the release."""
        return min((step for step in self.steps if step > self.step), default=None)

    @property
    def place(self) -> int:
        """Its number among the release's steps, from 1."""
        return self.steps.index(self.step) + 1


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """The suite's card, on ``main``."""

    repo: str
    text: Text
    details: tuple[Fact, ...]
    lines: tuple[StepLine, ...]
    has_tokenizer: bool
    gates: tuple[Gate, ...]
    source: str
    converter: str
    expected: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def final(self) -> StepLine:
        """The step that ``main`` holds."""
        return self.lines[-1]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the details table takes from the conversion plan, not from the config."""

    architecture: str
    dtype: str
    parameters: int
    embedding_parameters: int
    vocabulary: int
    tensor_parallel: int
    tokens_per_step: int | None


def details(options: Mapping[str, Any], sizes: Sizes, *, last_step: int) -> tuple[Fact, ...]:
    """The details table from a normalised NeoX config and the plan's sizes; GPT-NeoX's defaults say so."""
    rows = [
        _row("Architecture", sizes.architecture, "tensors and config"),
        _row("Parameters", f"{sizes.parameters:,}", "tensors"),
        _row("Parameters without embeddings", f"{sizes.parameters - sizes.embedding_parameters:,}", "tensors"),
        _number("Layers", options, "num_layers"),
        _number("Width", options, "hidden_size"),
        _number("Attention heads", options, "num_attention_heads"),
        _number("Key-value heads", options, "num_kv_heads"),
        _number("Context (tokens)", options, "max_position_embeddings"),
        _row("Vocabulary (rows, padded)", f"{sizes.vocabulary:,}", "tensors"),
        _row("Weights", sizes.dtype, "tensors"),
        _row("Tokens in a step", f"{sizes.tokens_per_step:,}" if sizes.tokens_per_step else None, "config and checkpoint"),
        _row(
            "Tokens in all",
            f"{sizes.tokens_per_step * last_step:,}" if sizes.tokens_per_step else None,
            "tokens in a step x last step",
        ),
        _optimizer(options),
        _learning_rate(options),
        _warmup(options),
        _row("Weight decay", _plain(options.get("weight_decay")), "config"),
        _row("Initialisation", _initialisation(options), "config"),
        _row("Seed", *_seed(options)),
        _row("Data path as configured", _data(options), "config"),
    ]
    return tuple(row for row in rows if row is not None)


def _row(name: str, value: str | None, source: str) -> Fact | None:
    return None if value is None else Fact(name, value, source)


def _plain(value: object) -> str | None:
    """A number or word as it is written; None stays None."""
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(name: str, options: Mapping[str, Any], option: str) -> Fact | None:
    value = options.get(option)
    return _row(name, f"{value:,}" if isinstance(value, int) else None, "config")


def _optimizer(options: Mapping[str, Any]) -> Fact | None:
    optimizer = options.get("optimizer")
    if not isinstance(optimizer, Mapping):
        return None
    params = optimizer.get("params")
    params = params if isinstance(params, Mapping) else {}
    shown = ", ".join(f"{name} {_listed(params[name])}" for name in ("betas", "eps") if name in params)
    kind = str(optimizer.get("type", "Adam"))
    return Fact("Optimizer", f"{kind} ({shown})" if shown else kind, "config")


def _listed(value: object) -> str:
    return ", ".join(str(_plain(item)) for item in value) if isinstance(value, list) else str(_plain(value))


def _peak_rate(options: Mapping[str, Any]) -> object:
    optimizer = options.get("optimizer")
    params = optimizer.get("params") if isinstance(optimizer, Mapping) else None
    return params.get("lr") if isinstance(params, Mapping) else options.get("lr")


def _learning_rate(options: Mapping[str, Any]) -> Fact | None:
    peak = _plain(_peak_rate(options))
    if peak is None:
        return None
    text = f"{peak}, {options.get('lr_decay_style', 'linear')} decay"
    if options.get("min_lr") is not None:
        text += f" to {_plain(options['min_lr'])}"
    if isinstance(options.get("lr_decay_iters"), int):
        text += f" over {options['lr_decay_iters']:,} iterations"
    return Fact("Learning rate", text, "config")


def _warmup(options: Mapping[str, Any]) -> Fact | None:
    """Warm-up as GPT-NeoX takes it: a fraction of the decay iterations, else of the training iterations."""
    warmup = options.get("warmup", 0.01)
    length = options.get("lr_decay_iters") or options.get("train_iters")
    if not isinstance(warmup, int | float) or not isinstance(length, int):
        return None
    source = "config" if "warmup" in options else "GPT-NeoX's default"
    return Fact("Warm-up", f"{warmup * 100:g} % ({round(warmup * length):,} iterations)", source)


def _initialisation(options: Mapping[str, Any]) -> str:
    first, last = options.get("init_method", "normal"), options.get("output_layer_init_method", "scaled_normal")
    return f"{first}, output layers {last}"


def _seed(options: Mapping[str, Any]) -> tuple[str, str]:
    seed = options.get("seed")
    return ("1234", "GPT-NeoX's default") if seed is None else (str(seed), "config")


def _data(options: Mapping[str, Any]) -> str | None:
    paths = options.get("train_data_paths")
    if isinstance(paths, list):
        return ", ".join(map(str, paths))
    return _plain(options.get("data_path"))
