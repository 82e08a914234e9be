"""Steps: their names, lists of them, and the schedules that say which there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from publish.errors import ScheduleError

PYTHIA = (0, *(2**power for power in range(10)), *range(1000, 143_001, 1000))
LOG_SPACED_20 = (0, *(2**power for power in range(10)), *(1000 * 2**power for power in range(8)), 143_000)
NAMED: Mapping[str, tuple[int, ...]] = {"pythia": PYTHIA, "log-spaced-20": LOG_SPACED_20}
FROM_CONFIG = "from-config"

_BRANCH = re.compile(r"(?:global_)?step(0|[1-9][0-9]{0,11})")
_LOOKS_LIKE_A_STEP = re.compile(r"(?i)(global)?[-_ ]?step")
_RANGE = re.compile(r"(\d+)(?::(\d+)(?::(\d+))?)?")
_MAX_STEPS = 1_000_000


def step_of(name: str) -> int | None:
    """The step that the name of a branch or folder states (``step512``, ``global_step512``), if it states one."""
    found = _BRANCH.fullmatch(name)
    return int(found[1]) if found else None


def looks_like_a_step(name: str) -> bool:
    """Whether ``name`` begins like a step's (``step01``, ``Step5``, ``step-5``) but does not state one."""
    return step_of(name) is None and _LOOKS_LIKE_A_STEP.match(name) is not None


def branch_of(step: int) -> str:
    return f"step{step}"


def parse_steps(text: str) -> tuple[int, ...]:
    """The steps in ``0,1,512``, ``0:1000``, ``1000:143000:1000`` (both ends included) or a mixture, ascending.

    A range without a stride has every number in it: it selects among steps that exist.

    Raises:
        ScheduleError: not such a list.
    """
    steps: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ScheduleError(
                f"{part.strip()!r} is not a step or a range of steps",
                f"steps {text!r}",
                "write 0,1,512 or 1000:143000:1000",
            )
        first, last, stride = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if last < first or stride == 0 or (last - first) // stride > _MAX_STEPS:
            raise ScheduleError(
                f"the range {part.strip()!r} is empty or has more than {_MAX_STEPS:,} steps",
                f"steps {text!r}",
                "write first:last:stride",
            )
        steps.update(range(first, last + 1, stride))
    return tuple(sorted(steps))


def from_config(options: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """The steps that GPT-NeoX saves, from ``checkpoint_factor``, ``extra_save_iters`` and ``train_iters``.

    ``checkpoint_scale: log`` saves at the factor and its powers, and at the end (gpt-neox
    ``NeoXArgs.calculate_derived``).

    Raises:
        ScheduleError: an option is absent or not a number.
    """
    last = _positive(options, "train_iters", where)
    extra = options.get("extra_save_iters") or []
    if not isinstance(extra, list) or not all(isinstance(step, int) and step >= 0 for step in extra):
        raise ScheduleError(
            f"extra_save_iters must be a list of iterations, got {extra!r}", where, "fix the config, or name the steps"
        )
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
            f"{name} must be a positive integer, got {value!r}: the config does not tell the schedule",
            where,
            "fix the config, or name the steps",
        )
    return int(value)


def _powers(factor: float, last: int, where: str) -> Iterator[int]:
    if factor <= 1:
        raise ScheduleError(
            f"checkpoint_factor must be more than 1 with a log scale, got {factor}",
            where,
            "fix the config, or name the steps",
        )
    step = factor
    while step < last:
        yield int(step)
        step *= factor
