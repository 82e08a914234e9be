"""Which names of a suite are checkpoints: a table of the conventions that published suites follow.

There is no common convention: a repo may mix two, and even one lab changes its names between releases. So every
convention is tried on every name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from publish.errors import ScheduleError
from publish.schedule import looks_like_a_step

MAIN = "main"
STEPS, TOKENS, WORDS = "steps", "tokens", "words"  # what a position in training is counted in
AXES: Mapping[str, str] = {"step": STEPS, "tokens": TOKENS, "words": WORDS}  # by the group of a pattern
FIRST_STAGE = "stage1"  # of names without a stage in a repo that has stages

UNITS: Mapping[str, int] = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_STEP = r"(?P<step>0|[1-9]\d{0,11})"
_PADDED_STEP = r"(?P<step>\d{1,12})"
_ROUNDED_STEP = r"(?P<step>\d{1,9}[kKmM])"
_TOKENS = r"(?P<tokens>\d{1,9}(?:\.\d{1,3})?[kKmMbBtT])"
_WORDS = r"(?P<words>\d{1,9}[kKmMbBtT])"
_STAGE = r"(?P<stage>stage\d+(?:-ingredient\d+)?)"
_SEED = r"(?P<seed>[A-Za-z0-9][A-Za-z0-9_-]*)"
_REPO = r"(?:[\w.-]+-)?"  # what the name of a repo for one step begins with


@dataclass(frozen=True, slots=True)
class Convention:
    """How some suites name their checkpoints. ``example`` is such a name and stands for the convention in reports.

    ``pattern`` matches a whole name. The position is its group ``step``, else ``tokens``, else ``words``; the groups
    ``stage`` and ``seed`` are optional.
    """

    example: str
    pattern: re.Pattern[str]
    used_by: str


def _convention(example: str, pattern: str, used_by: str) -> Convention:
    return Convention(example, re.compile(pattern), used_by)


CONVENTIONS = (
    _convention("step1000", rf"step{_STEP}", "Pythia, PolyPythias, HPLT"),
    _convention("global_step1000", rf"global_step{_STEP}", "folders of DeepSpeed"),
    _convention("step-1000", rf"step-{_STEP}", "SmolLM2"),
    _convention("step_1000", rf"step_{_STEP}", "OLMo RLVR"),
    _convention("stage1-step1000", rf"{_STAGE}-step{_STEP}", "OLMo 3"),
    _convention("stage1-step-1000", rf"{_STAGE}-step-{_STEP}", "SmolLM3"),
    _convention("step1000-tokens4B", rf"step{_STEP}-tokens{_TOKENS}", "OLMo 1, some of OLMo 2"),
    _convention("stage1-step1000-tokens5B", rf"{_STAGE}-step{_STEP}-tokens{_TOKENS}", "OLMo 2"),
    _convention("step1000-seed-default", rf"step{_STEP}-seed-{_SEED}", "DataDecide"),
    _convention("step-001000-2BT", rf"step-{_PADDED_STEP}-{_TOKENS}T", "FineWeb ablations"),
    _convention("step-480k-token-1007B", rf"{_REPO}step-{_ROUNDED_STEP}-(?:token-)?{_TOKENS}", "TinyLlama"),
    _convention("seed_0-step_20k", rf"{_REPO}seed_{_SEED}-step_{_ROUNDED_STEP}", "repos of MultiBERTs"),
    _convention("iter_0001000", rf"iter_{_PADDED_STEP}", "Megatron, OpenEuroLLM"),
    _convention("pretrain_iter_0001000", rf"(?P<stage>[a-z]+)_iter_{_PADDED_STEP}", "OpenCoder"),
    _convention("checkpoint-500", rf"checkpoint-{_STEP}", "folders of transformers' Trainer"),
    _convention("ckpt_356", rf"ckpt_{_PADDED_STEP}", "LLM360 Amber, folders of LLM360 K2"),
    _convention("240b_tokens", rf"{_TOKENS}_tokens", "RedPajama-INCITE"),
    _convention("chck_1M", rf"chck_{_WORDS}", "BabyLM"),
    _convention("Training in progress, step 500", rf"Training in progress, step {_STEP}", "commits of the Trainer"),
    _convention("Saving HF Model -- Step 1000", rf"Saving HF Model -- Step {_STEP}", "commits of pico-lm"),
)
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmMbBtT]?)")
_NUMBERED = re.compile(r"(?i)(stage\d|ckpt|chck|checkpoint|iter).*\d")
_FIX = "write it as ckpt_{step}, or as a regular expression with a group (?P<step>...), and stage and seed if need be"


@dataclass(frozen=True, slots=True)
class Label:
    """What a name states: a position in training, and the stage and the seed, which are empty where it states none."""

    position: int
    stage: str = ""
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a suite that are checkpoints, by what they state.

    ``axis``: what their positions are counted in. ``conventions``: how many names follow which, by its example.
    ``malformed``: names that look like checkpoints and follow no convention. ``others``: the rest, without ``main``.
    """

    labels: Mapping[str, Label] = field(default_factory=dict)
    axis: str = STEPS
    conventions: Mapping[str, int] = field(default_factory=dict)
    malformed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def several_series(self) -> bool:
        """Whether they are of several stages or seeds."""
        return len({(label.stage, label.seed) for label in self.labels.values()}) > 1


def read_names(names: Iterable[str], pattern: str | None = None) -> Names:
    """Tell checkpoints from other names, by ``pattern`` or by all conventions.

    Positions are on the axis that most of the names have; those on another axis count as malformed.

    Raises:
        ScheduleError: the pattern is not a regular expression, or does not say where the step is.
    """
    conventions = CONVENTIONS if pattern is None else (compile_pattern(pattern),)
    found: dict[str, dict[str, tuple[Convention, Label]]] = {axis: {} for axis in AXES.values()}
    others = []
    for name in sorted(name for name in names if name != MAIN):
        for convention in conventions:
            match = convention.pattern.fullmatch(name)
            group = next((group for group in AXES if match and match.groupdict().get(group)), None)
            if match and group:
                found[AXES[group]][name] = (convention, _label(match, group))
                break
        else:
            others.append(name)
    axis = max(found, key=lambda axis: len(found[axis]))  # the first of equals
    placed = found.pop(axis)
    labels = {name: label for name, (_, label) in placed.items()}
    if any(label.stage for label in labels.values()):
        labels = {name: replace(label, stage=label.stage or FIRST_STAGE) for name, label in labels.items()}
    malformed = {name for on_another_axis in found.values() for name in on_another_axis}
    malformed |= {name for name in others if _looks_like_a_checkpoint(name)}
    return Names(
        labels=labels,
        axis=axis,
        conventions=dict(Counter(convention.example for convention, _ in placed.values())),
        malformed=tuple(sorted(malformed)),
        others=tuple(name for name in others if name not in malformed),
    )


def _label(match: re.Match[str], group: str) -> Label:
    groups = match.groupdict()
    return Label(parse_count(groups[group]), groups.get("stage") or "", groups.get("seed") or "")


def parse_count(text: str) -> int:
    """``1000``, ``0124800``, ``480k``, ``2.5T`` as an integer.

    Raises:
        ScheduleError: it is not a number with an optional unit.
    """
    found = _COUNT.fullmatch(text)
    if found is None:
        raise ScheduleError(f"{text!r} is not a number", "--branches", _FIX)
    return int(Decimal(found[1]) * UNITS[found[2].lower()])


def _looks_like_a_checkpoint(name: str) -> bool:
    of_a_convention = any(convention.pattern.fullmatch(name) for convention in CONVENTIONS)
    return of_a_convention or looks_like_a_step(name) or _NUMBERED.fullmatch(name) is not None


def compile_pattern(pattern: str) -> Convention:
    """The convention that ``--branches`` describes: a name with ``{step}``, or a regular expression with groups.

    Raises:
        ScheduleError: it is neither.
    """
    where = f"--branches {pattern}"
    if "{step}" in pattern:
        before, _, after = pattern.partition("{step}")
        return _convention(pattern, re.escape(before) + _PADDED_STEP + re.escape(after), where)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ScheduleError(f"not a regular expression: {error}", where, _FIX) from error
    if not AXES.keys() & compiled.groupindex.keys():
        raise ScheduleError("the pattern does not say where the step is", where, _FIX)
    return Convention(pattern, compiled, where)
