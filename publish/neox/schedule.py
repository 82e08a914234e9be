"""A run's steps against a schedule, and each checkpoint against its name and its neighbours' config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from publish.errors import ConfigError, PublishError
from publish.formats.torch_archive import TorchFile
from publish.neox import config
from publish.neox.layout import find_layout
from publish.neox.state import TrainingState, read_state
from publish.schedule import FROM_CONFIG, NAMED, Comparison, Problem, compare, from_config
from publish.sources.files import CheckpointFiles
from publish.sources.runs import TrainingRun
from publish.text import some

SIZES = ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings", "make_vocab_size_divisible_by")


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """What a look at a run's steps found; ``opened`` counts the checkpoints whose own word was compared."""

    comparison: Comparison
    opened: int

    def text(self, wanted: str) -> str:
        """For people."""
        found = self.comparison
        lines = [f"{len(found.found)} steps found, {len(found.expected)} expected ({wanted}), {self.opened} opened."]
        if found.missing:
            lines.append(f"missing: {some(found.missing, 20)}")
        if found.unexpected:
            lines.append(f"unexpected: {some(found.unexpected, 20)}")
        lines += [f"{problem.kind}: {problem.detail}" for problem in found.problems]
        lines.append("Exactly the right steps." if found.ok else "Not as it should be.")
        return "\n".join(lines)


def expected_steps(run: TrainingRun, schedule: str | tuple[int, ...]) -> tuple[int, ...]:
    """The steps that ``schedule`` asks for; ``from-config`` asks the first checkpoint's config.

    Raises:
        ScheduleError: the config does not tell.
        ConfigError: it cannot be read.
    """
    if isinstance(schedule, tuple):
        return schedule
    if schedule in NAMED:
        return NAMED[schedule]
    assert schedule == FROM_CONFIG
    files = run.open(next(iter(run.steps.values())))
    try:
        texts = config.config_files(files)
        if not texts:
            raise ConfigError("no training config, so no schedule follows", files.where, "name a schedule or the steps")
        return from_config(config.merge(texts, files.where), files.where)
    finally:
        files.close()


def check_schedule(run: TrainingRun, schedule: str | tuple[int, ...], *, open_each: bool = True) -> ScheduleReport:
    """Compare names with ``schedule``, and (``open_each``) every checkpoint's own word with its name.

    A checkpoint that cannot be read is a problem of that step, not the end of the check.
    """
    comparison = compare(expected_steps(run, schedule), run.names)
    problems = tuple(_problems(run)) if open_each else ()
    return ScheduleReport(
        replace(comparison, problems=comparison.problems + problems), len(run.steps) if open_each else 0
    )


def _problems(run: TrainingRun) -> Iterator[Problem]:
    for step, checkpoint in run.steps.items():
        files = run.open(checkpoint)
        try:
            state = _state(files)
            yield from claims(step, state, files)
        except PublishError as error:
            yield Problem(step, "unreadable", f"{error.what} (at {error.where})")
        finally:
            files.close()


def _state(files: CheckpointFiles) -> TrainingState:
    layout = find_layout(files.sizes, files.where)
    main = TorchFile.open(layout.ranks[0], files.open(layout.ranks[0])) if layout.ranks else None
    return read_state(main, files.where)


def claims(step: int, state: TrainingState, files: CheckpointFiles) -> Iterator[Problem]:
    """Where the checkpoint's own word differs from its name or its config."""
    if state.iteration is None:
        yield Problem(step, "no-iteration", f"step {step}: the checkpoint does not say which iteration it is")
    elif state.iteration != step:
        yield Problem(step, "wrong-iteration", f"step {step}: the checkpoint says it is iteration {state.iteration}")
    texts = config.config_files(files)
    options = config.merge(texts, files.where) if texts else {}
    for name in SIZES:
        mine, configured = state.args.get(name), options.get(name)
        if mine is not None and configured is not None and mine != configured:
            yield Problem(
                step, "config-mismatch", f"step {step}: {name} is {mine} in the checkpoint, {configured} in its config"
            )
