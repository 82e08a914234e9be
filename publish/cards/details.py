"""Rows of tables: what the config says about the run and what was measured, every figure with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from publish.records.manifest import Training
from publish.records.run import CONFIG, ConfigFacts, RunFacts, Sizes
from publish.text import count


def thousands(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def decimal(value: float | int) -> str:
    """A number exactly as configured: 0.1, 1e-3, 1.6e-4, 143,000. Small ones in powers of ten."""
    if isinstance(value, int):
        return thousands(value)
    exact = Decimal(repr(value)).normalize()
    if exact == 0:
        return "0"
    if abs(exact) < Decimal("0.01"):
        digits, _, exponent = f"{exact:e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{exact:,f}"


def percent(fraction: float) -> str:
    """0.01 as ``1 %``, 0.0069930 as ``0.699 %``."""
    return f"{Decimal(f'{fraction * 100:.3g}').normalize():f} %"


def describe_steps(steps: Sequence[int]) -> str:
    """A schedule in words: ``0, 1, 2, 4, ..., 512, then every 1,000 to 143,000``. ``steps`` ascend."""
    parts: list[str] = []
    index = 0
    while index < len(steps):
        doubling, even = _run(steps, index, doubling=True), _run(steps, index, doubling=False)
        if doubling >= max(even, 5):
            parts += [*map(thousands, steps[index : index + 3]), "...", thousands(steps[index + doubling - 1])]
            index += doubling
        elif even >= 4:
            gap, first, last = steps[index + 1] - steps[index], steps[index], steps[index + even - 1]
            start = "" if parts and first - steps[index - 1] <= gap else f"from {thousands(first)} "
            parts.append(f"{'then ' if parts else ''}{start}every {thousands(gap)} to {thousands(last)}")
            index += even
        else:
            parts.append(thousands(steps[index]))
            index += 1
    return ", ".join(parts)


def _run(steps: Sequence[int], start: int, *, doubling: bool) -> int:
    """How many steps from ``start`` on double, or keep one distance."""
    if start + 1 >= len(steps):
        return 1
    gap = steps[start + 1] - steps[start]
    length = 1
    for one, other in zip(steps[start:], steps[start + 1 :], strict=False):
        if other != (2 * one if doubling else one + gap) or other <= one:
            break
        length += 1
    return length


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of a table: what, its value, and where the value comes from. ``literal``: shown as code."""

    name: str
    value: str
    source: str
    literal: bool = False


TENSORS, CHECKPOINT = "tensors", "checkpoint"
_ARCHITECTURES = {"gpt_neox": "GPT-NeoX", "llama": "Llama", "mistral": "Mistral"}


def details(run: RunFacts, last_step: int) -> tuple[Fact, ...]:
    """The details table of a run that ends at ``last_step``; an unknown value has no row."""
    return (*_network(run.config, run.sizes), *_batch(run.config, run.sizes, last_step), *_training(run.config))


def training_rows(training: Training, tokens: int | None) -> tuple[Fact, ...]:
    """What a checkpoint says about its training."""
    rows = (
        ("Iteration", training.iteration, CHECKPOINT),
        ("Tokens seen", tokens, "iteration x tokens in a step"),
        ("Learning rate", training.learning_rate, CHECKPOINT),
        ("Loss scale", training.loss_scale, CHECKPOINT),
        ("Updates skipped so far", training.skipped_steps, f"{CHECKPOINT}; the loss scale had overflowed"),
    )
    return tuple(Fact(name, _rounded(value), source) for name, value, source in rows if value is not None)


def _rounded(value: float | int) -> str:
    """Whole numbers exactly, others to six digits."""
    return thousands(int(value)) if value == int(value) else decimal(float(f"{value:.6g}"))


def _network(config: ConfigFacts, sizes: Sizes) -> Iterator[Fact]:
    yield Fact("Architecture", _ARCHITECTURES.get(sizes.architecture, sizes.architecture), f"{TENSORS}, {CONFIG}")
    yield Fact("Parameters", thousands(sizes.parameters), TENSORS)
    yield Fact("Parameters without embeddings", thousands(sizes.parameters - sizes.embedding_parameters), TENSORS)
    for name, value in (
        ("Layers", config.layers),
        ("Width", config.hidden),
        ("Attention heads", config.heads),
        ("Key-value heads", config.kv_heads),
    ):
        if value is not None:
            yield Fact(name, thousands(value), CONFIG)
    if config.context is not None:
        yield Fact("Context", f"{thousands(config.context)} tokens", CONFIG)
    if config.rotary_fraction is not None and config.rotary_base is not None:
        rotary = f"{percent(config.rotary_fraction)} of each head, base {decimal(config.rotary_base)}"
        yield Fact("Rotary embedding", rotary, config.source("rotary_pct", "rotary_emb_base"))
    yield Fact("Vocabulary", f"{thousands(sizes.vocabulary)} rows, padding included", TENSORS)
    yield Fact("Weights stored as", sizes.dtype, TENSORS)


def _batch(config: ConfigFacts, sizes: Sizes, last_step: int) -> Iterator[Fact]:
    """The batch in tokens and the total; without the number of ranks, the part of it that is known."""
    tokens = sizes.tokens_per_step
    if tokens is None:
        if config.micro_batch is not None:
            known = f"{thousands(config.micro_batch)} sequences a rank; the number of ranks is not recorded"
            yield Fact("Batch", known, CONFIG)
        return
    source = CONFIG if config.global_batch is not None else f"{CONFIG}, {CHECKPOINT}"
    text = f"{thousands(tokens)} tokens"
    if config.sequence and tokens % config.sequence == 0:
        text += f" ({thousands(tokens // config.sequence)} sequences of {thousands(config.sequence)})"
    if sizes.data_parallel is not None and config.global_batch is None:
        text += f", over {count(sizes.data_parallel, 'data-parallel rank')}"
    yield Fact("Batch", text, source)
    if last_step:
        yield Fact(
            "Tokens in all", f"{thousands(tokens * last_step)} in {thousands(last_step)} steps", "batch x last step"
        )


def _training(config: ConfigFacts) -> Iterator[Fact]:
    if config.optimizer is not None:
        yield Fact("Optimizer", _optimizer(config), CONFIG)
    if config.learning_rate is not None:
        yield Fact("Learning rate", *_learning_rate(config))
    if config.warmup is not None and config.warmup_steps is not None:
        steps = f"{count(config.warmup_steps, 'step')}"
        yield Fact("Warm-up", f"{percent(config.warmup)} ({steps})", config.source("warmup"))
    for name, value in (
        ("Weight decay", config.weight_decay),
        ("Gradient clipping", config.gradient_clipping),
    ):
        if value is not None:
            yield Fact(name, decimal(value), CONFIG)
    if config.precision is not None:
        yield Fact("Training precision", _precision(config), CONFIG)
    methods = f"{config.init_method}, output layers {config.output_init_method}"
    yield Fact("Initialisation", methods, config.source("init_method", "output_layer_init_method"))
    if config.seed is not None:
        yield Fact("Seed", str(config.seed), config.source("seed"))
    if config.data_paths:
        yield Fact("Data path", ", ".join(config.data_paths), CONFIG, literal=True)
    else:
        yield Fact("Data path", "not recorded in the config", CONFIG)
    if config.vocab_file is not None:
        yield Fact("Tokenizer file", config.vocab_file, CONFIG, literal=True)


def _precision(config: ConfigFacts) -> str:
    if config.loss_scale is not None:
        return f"{config.precision}, loss scale {config.loss_scale:,g}"
    if config.precision != "fp16":
        return str(config.precision)
    return "fp16, dynamic loss scale" + (
        f" from 2^{config.initial_scale_power}" if config.initial_scale_power is not None else ""
    )


def _optimizer(config: ConfigFacts) -> str:
    params = []
    if config.betas:
        params.append(f"betas {', '.join(map(decimal, config.betas))}")
    if config.epsilon is not None:
        params.append(f"eps {decimal(config.epsilon)}")
    return f"{config.optimizer} ({'; '.join(params)})" if params else str(config.optimizer)


def _learning_rate(config: ConfigFacts) -> tuple[str, str]:
    """Peak, decay and minimum, with the source."""
    text = f"{decimal(config.learning_rate or 0.0)}, "
    if config.decay_style == "constant":
        return text + "constant", config.source("lr_decay_style")
    text += f"{config.decay_style} decay"
    if length := config.decay_steps or config.steps:
        text += f" over {thousands(length)} steps"
    if config.min_learning_rate:
        text += f", not below {decimal(config.min_learning_rate)}"
    # the rate itself is the config's even where the style is left to GPT-NeoX
    return text, CONFIG if "lr_decay_style" not in config.defaults else f"{CONFIG}, {config.source('lr_decay_style')}"
