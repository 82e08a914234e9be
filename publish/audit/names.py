"""Which branches of a suite are steps, read from their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from publish.errors import ScheduleError
from publish.schedule import looks_like_a_step

MAIN = "main"
_NUMBER = r"(?P<step>0|[1-9]\d{0,11})"

CONVENTIONS: Mapping[str, re.Pattern[str]] = {
    "step{step}": re.compile(rf"step{_NUMBER}"),  # Pythia
    "global_step{step}": re.compile(rf"global_step{_NUMBER}"),  # DeepSpeed's folders
    "step-{step}": re.compile(rf"step-{_NUMBER}"),
    "step_{step}": re.compile(rf"step_{_NUMBER}"),
    # OLMo 1 (step1000-tokens4B) and OLMo 2 (stage1-step1000-tokens5B, stage2-ingredient1-step1000-tokens5B)
    "stage-step-tokens": re.compile(rf"(?:(?P<series>stage\d+(?:-ingredient\d+)?)-)?step{_NUMBER}-tokens\d+B"),
    "ckpt_{step}": re.compile(rf"ckpt_{_NUMBER}"),  # Amber, LLM360
    "checkpoint-{step}": re.compile(rf"checkpoint-{_NUMBER}"),  # transformers' Trainer
    "iter_{step}": re.compile(r"iter_(?P<step>\d{1,12})"),  # Megatron, with leading zeros
}
_OTHER_TRACES = re.compile(r"(?i)(stage\d|ckpt|checkpoint|iter)[-_ ]?")
_FIX = (
    "write it as ckpt_{step}, or as a regular expression with a group (?P<step>...); "
    f"known conventions: {', '.join(CONVENTIONS)}"
)


@dataclass(frozen=True, slots=True)
class Label:
    """What a branch name states: a step, of a series (OLMo's ``stage1``; empty where the suite has only one)."""

    step: int
    series: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """Branches by what their names state. ``malformed`` names look like steps and do not follow the convention."""

    convention: str
    labels: Mapping[str, Label]
    malformed: tuple[str, ...]


def read_names(branches: Iterable[str], pattern: str | None = None) -> Names:
    """Tell steps from other branches, by ``pattern`` or by the convention that most of the names follow.

    Raises:
        ScheduleError: the pattern is not a regular expression, or does not say where the step is.
    """
    names = sorted(name for name in branches if name != MAIN)
    if pattern is not None:
        return _read(names, pattern, CONVENTIONS.get(pattern) or _compile(pattern))
    readings = [_read(names, name, convention) for name, convention in CONVENTIONS.items()]
    return max(readings, key=lambda reading: len(reading.labels))  # the first of equals


def _read(names: Iterable[str], convention: str, pattern: re.Pattern[str]) -> Names:
    labels: dict[str, Label] = {}
    malformed = []
    for name in names:
        if found := pattern.fullmatch(name):
            labels[name] = Label(int(found["step"]), found.groupdict().get("series") or "")
        elif _looks_like_a_step(name):
            malformed.append(name)
    return Names(convention, labels, tuple(malformed))


def _looks_like_a_step(name: str) -> bool:
    of_another_convention = any(pattern.fullmatch(name) for pattern in CONVENTIONS.values())
    numbered = _OTHER_TRACES.match(name) is not None and name[-1].isdigit()
    return of_another_convention or looks_like_a_step(name) or numbered


def _compile(pattern: str) -> re.Pattern[str]:
    if "{step}" in pattern:
        before, _, after = pattern.partition("{step}")
        return re.compile(re.escape(before) + r"(?P<step>\d{1,12})" + re.escape(after))
    where = f"--branches {pattern}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ScheduleError(f"not a regular expression: {error}", where, _FIX) from error
    if "step" not in compiled.groupindex:
        raise ScheduleError("the pattern does not say where the step is", where, _FIX)
    return compiled
