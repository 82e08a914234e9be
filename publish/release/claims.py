"""Check that a checkpoint is the step of its name, belongs to the release's run, and is what the release says."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publish.cards.lint import lint_claims
from publish.convert.plan import ConversionPlan
from publish.errors import GateError, ScheduleError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import HARMLESS, MAPPED, NeoxConfig
from publish.records.gates import Gate, failed, passed
from publish.records.run import ConfigFacts, config_facts
from publish.release_file import Release
from publish.schedule import from_config
from publish.sources.runs import CheckpointRef
from publish.text import count

CLAIMS = "claims"
DEFAULT_SEED = MAPPED["seed"]  # a suite's seed0 is a run with GPT-NeoX's default (PolyPythias)
_SEED = re.compile(r"(?<!data[-_ ])(?<!weight[-_ ])seed[-_ ]?(\d+)", re.I)
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", re.I)
_UNITS = {"m": 1e6, "b": 1e9}
_ROUNDED = 0.1  # names round: 160M has 162 million parameters, 6.9B 6.86 billion

# what a restart of the same run may change: how work is spread, and how it is saved
MAY_CHANGE = frozenset(
    (
        *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gas", "batch_size"),
        *("extra_save_iters", "checkpoint_factor", "save_interval"),
        *("model_parallel_size", "pipe_parallel_size", "padded_vocab_size"),
    )
)


def check_same_run(first: NeoxConfig, this: NeoxConfig) -> None:
    """Refuse a step whose config describes another model or another training.

    Raises:
        GateError: names the option and both values.
    """
    for name in sorted({*first.options, *this.options} & set(MAPPED) - MAY_CHANGE - set(HARMLESS)):
        one, other = first.get(name), this.get(name)
        if one != other:
            raise GateError(
                f"{name} is {other!r} here and {one!r} in the release's first step",
                this.where,
                "the checkpoint is of another run; fetch the right one",
            )


def check_step(source: CheckpointRef, checkpoint: RawCheckpoint, *, must_say: bool = False) -> None:
    """Refuse, before a weight is read, a checkpoint whose iteration is not the step of its name.

    Raises:
        GateError: names both; or (``must_say``) the checkpoint states no iteration.
    """
    iteration = checkpoint.state.iteration
    if iteration is None and must_say:
        raise GateError(
            f"{source.name} does not say which iteration it is, so nothing proves that it is that step",
            checkpoint.where,
            "fetch its mp_rank_*_model_states.pt files as well",
        )
    if source.step is not None and iteration is not None and iteration != source.step:
        raise GateError(
            f"{source.name} holds iteration {iteration:,}: the checkpoint says so itself",
            checkpoint.where,
            "another checkpoint was put there; fetch the right one",
        )


def claims(release: Release, config: NeoxConfig, plan: ConversionPlan, step: int) -> Gate:
    """Whether the release file says the same about data, sizes, seed and schedule as this checkpoint's config."""
    facts = config_facts(config.options)
    wrong = [finding.detail for finding in lint_claims(release.card.notes, facts, datasets=release.card.datasets)]
    wrong += [*_title(release.card.title, facts, plan), *_saved(config, step)]
    figures = {"datasets": len(release.card.datasets), "parameters": plan.parameters}
    if facts.seed is not None:
        figures["seed"] = facts.seed
    if wrong:
        return failed(CLAIMS, "; ".join(wrong), **figures)
    return passed(CLAIMS, "data, sizes, seed and schedule are as in the checkpoint's config", **figures)


def _title(title: str, facts: ConfigFacts, plan: ConversionPlan) -> Iterator[str]:
    seed = _SEED.search(title)
    if seed and facts.seed is not None and int(seed[1]) not in (facts.seed, 0 if facts.seed == DEFAULT_SEED else None):
        yield f"the title {title!r} says seed {seed[1]}, the config {facts.seed}"
    size = _SIZE.search(title)
    if size:
        said = float(size[1]) * _UNITS[size[2].lower()]
        if abs(plan.parameters - said) > _ROUNDED * said:
            yield f"the title {title!r} says {size[0]}, and the model has {plan.parameters:,} parameters"


def _saved(config: NeoxConfig, step: int) -> Iterator[str]:
    """A step that the config's own schedule does not save; nothing if the config states no schedule."""
    try:
        saved = from_config(dict(config.options), config.where)
    except ScheduleError:
        return
    if step not in saved:
        yield f"the config saves {count(len(saved), 'step')}, the last one {saved[-1]:,}, and not step {step:,}"
