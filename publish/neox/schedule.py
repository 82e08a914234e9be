"""Whether a run has the right steps, and whether each checkpoint is the step that its name says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from publish.errors import ConfigError, PublishError
from publish.formats.torch_archive import TorchFile
from publish.neox.checkpoint import find_layout
from publish.neox.config import config_files, merge
from publish.neox.state import read_state
from publish.schedule import FROM_CONFIG, NAMED, from_config, looks_like_a_step
from publish.sources.runs import CheckpointRef, TrainingRun
from publish.text import count, some

SIZES = ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings", "make_vocab_size_divisible_by")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a step, or (``step`` is None) with a name: ``kind`` for scripts, ``detail`` for people."""

    step: int | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """A run's steps against a schedule. ``unexpected`` are names; ``opened`` is how many checkpoints were opened."""

    expected: tuple[int, ...]
    found: tuple[int, ...]
    missing: tuple[int, ...]
    unexpected: tuple[str, ...]
    problems: tuple[Problem, ...]
    opened: int = 0

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.problems)

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish schedule`` (`docs/cli.md`), without the name of the schedule."""
        document = asdict(self)
        del document["opened"]
        return {**document, "ok": self.ok}

    def text(self, schedule: str) -> str:
        """The report for people; ``schedule`` is what they asked for."""
        expected = f"{len(self.expected):,} expected ({schedule})"
        lines = [f"{count(len(self.found), 'step')} found, {expected}, {self.opened:,} opened."]
        if self.missing:
            lines.append(f"missing: {some(self.missing, 20)}")
        if self.unexpected:
            lines.append(f"unexpected: {some(self.unexpected, 20)}")
        lines += [f"{problem.kind}: {problem.detail}" for problem in self.problems]
        lines.append("The steps are right." if self.ok else "The steps are not right.")
        return "\n".join(lines)


def expected_steps(run: TrainingRun, schedule: str | tuple[int, ...]) -> tuple[int, ...]:
    """The steps of ``schedule``; ``from-config`` reads the config of the run's first checkpoint.

    Raises:
        ScheduleError: the config does not tell the schedule. ConfigError: there is no config, or it cannot be read.
    """
    if isinstance(schedule, tuple):
        return schedule
    if schedule in NAMED:
        return NAMED[schedule]
    assert schedule == FROM_CONFIG
    files = run.open(next(iter(run.steps.values())))
    try:
        texts = config_files(files)
        if not texts:
            what = "no training config found, which would tell the schedule"
            raise ConfigError(what, files.where, "name a schedule, or the steps")
        return from_config(merge(texts, files.where), files.where)
    finally:
        files.close()


def check_schedule(run: TrainingRun, schedule: str | tuple[int, ...], *, names_only: bool = False) -> ScheduleReport:
    """Compare the run's names with ``schedule``, and each checkpoint's iteration and sizes with its name and config.

    ``names_only``: open no checkpoint. One that cannot be read is a problem of its step.

    Raises:
        ScheduleError, ConfigError: as :func:`expected_steps`.
    """
    expected = tuple(sorted(set(expected_steps(run, schedule))))
    unparsable = sorted(name for name in run.names if looks_like_a_step(name))
    problems = [
        Problem(None, "unparsable-name", f"{name!r} looks like a step's name, but states no step")
        for name in unparsable
    ]
    if not names_only:
        problems += [problem for ref in run.steps.values() for problem in _check_checkpoint(run, ref)]
    return ScheduleReport(
        expected=expected,
        found=tuple(run.steps),
        missing=tuple(step for step in expected if step not in run.steps),
        unexpected=(*(ref.name for step, ref in run.steps.items() if step not in set(expected)), *unparsable),
        problems=tuple(problems),
        opened=0 if names_only else len(run.steps),
    )


def _check_checkpoint(run: TrainingRun, ref: CheckpointRef) -> Iterator[Problem]:
    files = run.open(ref)
    try:
        layout = find_layout(files.sizes, files.where)
        main = TorchFile.open(layout.ranks[0], files.open(layout.ranks[0])) if layout.ranks else None
        state = read_state(main, files.where)
        texts = config_files(files)
        options = merge(texts, files.where) if texts else {}
    except PublishError as error:
        yield Problem(ref.step, "unreadable", f"{error.what} (at {error.where})")
        return
    finally:
        files.close()
    if state.iteration is None:
        yield Problem(ref.step, "no-iteration", f"{ref.name}: the checkpoint does not state its iteration")
    elif state.iteration != ref.step:
        what = f"{ref.name}: the checkpoint states iteration {state.iteration}"
        yield Problem(ref.step, "wrong-iteration", what)
    for name in SIZES:
        stated, configured = state.args.get(name), options.get(name)
        if stated is not None and configured is not None and stated != configured:
            what = f"{ref.name}: {name} is {stated} in the checkpoint, {configured} in its config"
            yield Problem(ref.step, "config-mismatch", what)
