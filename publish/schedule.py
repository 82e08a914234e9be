"""Which steps there must be, and which there are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publish.errors import ScheduleError

PYTHIA = (0, *(2**power for power in range(10)), *range(1000, 143_001, 1000))
LOG_SPACED_20 = (0, *(2**power for power in range(10)), *(1000 * 2**power for power in range(8)), 143_000)
NAMED: Mapping[str, tuple[int, ...]] = {"pythia": PYTHIA, "log-spaced-20": LOG_SPACED_20}
FROM_CONFIG = "from-config"

_BRANCH = re.compile(r"(?:global_)?step(0|[1-9][0-9]{0,11})")
_LOOKS_LIKE_A_STEP = re.compile(r"(?i)(global)?[-_ ]?step")
_RANGE = re.compile(r"(\d+)(?::(\d+)(?::(\d+))?)?")
_MOST_STEPS = 1_000_000


def step_of(name: str) -> int | None:
    """The step that a branch or folder name states (``step512``, ``global_step512``), else None."""
    found = _BRANCH.fullmatch(name)
    return int(found[1]) if found else None


def looks_like_a_step(name: str) -> bool:
    """Whether ``name`` was meant to be a step's and cannot be parsed as one."""
    return step_of(name) is None and _LOOKS_LIKE_A_STEP.match(name) is not None


def branch_of(step: int) -> str:
    return f"step{step}"


def parse_steps(text: str) -> tuple[int, ...]:
    """``0,1,512``, ``0:1000``, ``1000:143000:1000`` (both ends included) and mixtures, ascending.

    A range without a stride takes every number in it, so it selects among steps that exist.

    Raises:
        ScheduleError: not such a list.
    """
    steps: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ScheduleError(
                f"{part.strip()!r} names no steps", f"steps {text!r}", "write 0,1,512 or 1000:143000:1000"
            )
        first, last, stride = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if last < first or stride == 0 or (last - first) // stride > _MOST_STEPS:
            raise ScheduleError(
                f"the range {part.strip()!r} is empty or endless",
                f"steps {text!r}",
                "write first:last:stride",
            )
        steps.update(range(first, last + 1, stride))
    return tuple(sorted(steps))


def from_config(options: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """The steps GPT-NeoX saves, from ``checkpoint_factor``, ``extra_save_iters`` and ``train_iters``.

    ``checkpoint_scale: log`` saves at powers of the factor, from the factor on, and at the end
    (gpt-neox ``NeoXArgs.calculate_derived``).

    Raises:
        ScheduleError: an option is absent or no number.
    """
    last = _positive(options, "train_iters", where)
    extra = options.get("extra_save_iters") or []
    if not isinstance(extra, list) or not all(isinstance(step, int) and step >= 0 for step in extra):
        raise ScheduleError(f"extra_save_iters is {extra!r}", where, "a list of iterations is due")
    if options.get("checkpoint_factor") is None and options.get("save_interval") is None:
        regular: Iterable[int] = ()
    elif options.get("checkpoint_scale") == "log":
        regular = _powers(float(options.get("checkpoint_factor") or 0), last, where)
    else:
        name = "checkpoint_factor" if options.get("checkpoint_factor") is not None else "save_interval"
        factor = _positive(options, name, where)
        regular = range(factor, last + 1, factor)
    return tuple(sorted({step for step in (*extra, *regular, last) if step <= last}))


def _positive(options: Mapping[str, Any], name: str, where: str) -> int:
    value = options.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0 or int(value) != value:
        raise ScheduleError(
            f"{name} is {value!r}, so the schedule does not follow from the config", where, "name the steps"
        )
    return int(value)


def _powers(factor: float, last: int, where: str) -> Iterator[int]:
    if factor <= 1:
        raise ScheduleError(f"checkpoint_factor {factor} with a log scale never ends", where, "name the steps")
    step = factor
    while step < last:
        yield int(step)
        step *= factor


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one step: ``kind`` for scripts, ``detail`` for people."""

    step: int | None
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Expected steps against the names found."""

    expected: tuple[int, ...]
    found: tuple[int, ...]
    missing: tuple[int, ...]
    unexpected: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not (self.missing or self.unexpected or self.problems)


def compare(expected: Iterable[int], names: Iterable[str]) -> Comparison:
    """Which of ``expected`` are missing among ``names`` (branches or folders), and which names are no step of it.

    ``main`` and names that do not look like steps are not judged; names that look like steps and cannot be parsed
    (``step01``, ``Step5``, ``step-5``) are.
    """
    wanted = tuple(sorted(set(expected)))
    by_step: dict[int, list[str]] = {}
    unparsable = []
    for name in names:
        step = step_of(name)
        if step is not None:
            by_step.setdefault(step, []).append(name)
        elif looks_like_a_step(name):
            unparsable.append(name)
    found = tuple(sorted(by_step))
    twice = [
        Problem(step, "ambiguous", f"{' and '.join(sorted(same))} both claim step {step}")
        for step, same in sorted(by_step.items())
        if len(same) > 1
    ]
    odd = [Problem(None, "unparsable-name", f"{name!r} looks like a step and is none") for name in sorted(unparsable)]
    surplus = [name for step in found if step not in set(wanted) for name in sorted(by_step[step])]
    return Comparison(
        wanted,
        found,
        tuple(sorted(set(wanted) - set(found))),
        (*surplus, *sorted(unparsable)),
        (*twice, *odd),
    )
