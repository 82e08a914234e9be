"""What two models are to each other, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

from publish.compare.layers import OTHER, RANDOM, TYPES, by_layer
from publish.compare.pair import (
    BITWISE,
    DIFFERENT,
    ONLY_LEFT,
    ONLY_RIGHT,
    SHAPE,
    ZERO_SIGN,
    Comparison,
    Distribution,
    PairStatistics,
    SideFacts,
    TensorComparison,
)
from publish.compare.side import Account
from publish.explain.stored import differences as state_differences
from publish.text import some

# What chance alone does to a standard deviation, a mean and a correlation of a given number of elements.


ERROR_RATE = 1e-3
NORMAL_KURTOSIS = 3.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """Several tensors as one sample: ``std`` is that within the tensors, NaN where there is no finite element."""

    elements: int
    std: float
    kurtosis: float


def pool(distributions: Iterable[Distribution]) -> Pooled:
    """One sample of several tensors, whose means may differ."""
    parts = [each for each in distributions if each.finite]
    elements = sum(part.finite for part in parts)
    if not elements:
        return Pooled(0, math.nan, math.nan)
    std = math.sqrt(sum(part.finite * part.std**2 for part in parts) / elements)
    weight = sum(part.finite for part in parts if part.std > 0)
    kurtosis = sum(part.finite * part.kurtosis for part in parts if part.std > 0) / weight if weight else math.nan
    return Pooled(elements, std, kurtosis)


def limit(tests: int) -> float:
    """How many standard errors chance exceeds in none of ``tests``, but for `ERROR_RATE` of the comparisons."""
    return NormalDist().inv_cdf(1 - ERROR_RATE / (2 * max(1, tests)))


def ratio_error(left: Pooled, right: Pooled) -> float:
    """The standard error of log(left std / right std), both samples drawn alike."""
    kurtosis = max(NORMAL_KURTOSIS, *(each.kurtosis for each in (left, right) if not math.isnan(each.kurtosis)))
    return math.sqrt((kurtosis - 1) / 4 * (1 / left.elements + 1 / right.elements))


def ratio_departure(left: Pooled, right: Pooled) -> float:
    """log(left std / right std) in standard errors; infinite where one side alone is constant, 0 where both are."""
    if not (left.elements and right.elements):
        return math.nan
    if left.std == 0 or right.std == 0:
        return 0.0 if left.std == right.std else math.copysign(math.inf, left.std - right.std)
    return math.log(left.std / right.std) / ratio_error(left, right)


def mean_departure(left: Distribution, right: Distribution) -> float:
    """The difference of the means in standard errors."""
    error = math.sqrt(left.std**2 / max(1, left.finite) + right.std**2 / max(1, right.finite))
    return (left.mean - right.mean) / error if error else 0.0


def correlation_departure(correlation: float, elements: int) -> float:
    """A correlation in the standard errors of independent samples; NaN for a constant."""
    if math.isnan(correlation) or elements <= 3:
        return math.nan
    held = max(-1 + 1e-15, min(1 - 1e-15, correlation))
    return math.atanh(held) * math.sqrt(elements - 3)


# What the figures of a comparison amount to, test by test, before anything is concluded.


@dataclass(frozen=True, slots=True)
class TypeComparison:
    """All tensors of one layer type. ``ratio`` and its ``error`` are NaN where a side is constant.

    ``expected``: the deviation that the init methods of the two sides predict, None where they are not known.
    """

    name: str
    left: Pooled
    right: Pooled
    expected: tuple[float | None, float | None]

    @property
    def ratio(self) -> float:
        return self.left.std / self.right.std if self.left.std and self.right.std else math.nan

    @property
    def predicted(self) -> float | None:
        """What the left side's init method predicts, else the right side's."""
        return next((std for std in self.expected if std is not None), None)

    @property
    def error(self) -> float:
        """The standard error of the ratio where both sides are drawn alike."""
        return self.ratio * ratio_error(self.left, self.right) if math.isfinite(self.ratio) else math.nan

    @property
    def departure(self) -> float:
        return ratio_departure(self.left, self.right)


@dataclass(frozen=True, slots=True)
class TensorTests:
    """One random tensor: how many standard errors its std, its mean and its correlation are from what chance gives."""

    name: str
    kind: str
    std: float
    mean: float
    correlation: float
    ratio: float


@dataclass(frozen=True)
class Evidence:
    """The tests of one comparison. ``drawn`` are the tensors that initialisation draws, ``constant`` the others."""

    comparison: Comparison

    @cached_property
    def drawn(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        return {name: each for name, each in self.comparison.compared.items() if _is_drawn(*each)}

    @cached_property
    def constant(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        return {name: each for name, each in self.comparison.compared.items() if name not in self.drawn}

    @cached_property
    def types(self) -> tuple[TypeComparison, ...]:
        """By layer type, in the order of `TYPES`; absent ones are left out."""
        compared = self.comparison.compared.values()
        sides = (self.comparison.left.account.expected_std, self.comparison.right.account.expected_std)
        made = []
        for kind in TYPES:
            members = [(tensor, found) for tensor, found in compared if tensor.kind == kind]
            if members:
                left, right = (pool(side) for side in zip(*((f.left, f.right) for _, f in members), strict=True))
                names = [tensor.name for tensor, _ in members]
                expected = [_one_std([side.get(name) for name in names]) for side in sides]
                made.append(TypeComparison(kind, left, right, (expected[0], expected[1])))
        return tuple(made)

    @cached_property
    def tests(self) -> tuple[TensorTests, ...]:
        """The random tensors that differ; equal ones have nothing to test."""
        return tuple(
            TensorTests(
                tensor.name,
                tensor.kind,
                ratio_departure(pool([found.left]), pool([found.right])),
                mean_departure(found.left, found.right),
                correlation_departure(found.correlation, min(found.left.finite, found.right.finite)),
                found.left.std / found.right.std if found.right.std else math.nan,
            )
            for tensor, found in self.drawn.values()
            if tensor.outcome == DIFFERENT
        )

    @cached_property
    def limit(self) -> float:
        """The standard errors that none of these tests exceeds by chance (see `chance.limit`)."""
        return limit(3 * len(self.tests) + sum(kind.name in RANDOM for kind in self.types))

    @property
    def odd_types(self) -> tuple[TypeComparison, ...]:
        """Random layer types whose deviations are of two distributions."""
        return tuple(t for t in self.types if t.name in RANDOM and abs(t.departure) > self.limit)

    @property
    def odd_stds(self) -> tuple[TensorTests, ...]:
        """Tensors whose deviations are of two distributions, unless their whole type is off by the same factor."""
        factors = {each.name: each.ratio for each in self.odd_types}
        return tuple(
            test
            for test in self.tests
            if min(abs(test.std), abs(_apart(test, factors.get(test.kind, 1.0)))) > self.limit
        )

    @property
    def odd_means(self) -> tuple[TensorTests, ...]:
        return tuple(test for test in self.tests if abs(test.mean) > self.limit)

    @property
    def correlated(self) -> tuple[TensorTests, ...]:
        """Random tensors that differ and yet have more in common than chance gives."""
        return tuple(test for test in self.tests if abs(test.correlation) > self.limit)

    def at_initialisation(self, side: str) -> bool:
        """Whether most norms and biases of a side (``left``, ``right``) are still constant; else it was trained."""
        sides: list[Distribution] = [getattr(found, side) for _, found in self.constant.values()]
        flat = [each.std == 0 for each in sides if each.finite]
        if flat:
            return sum(flat) > len(flat) / 2
        account: Account = getattr(self.comparison, side).account
        return account.step == 0


def _apart(test: TensorTests, factor: float) -> float:
    """How far the ratio of a tensor is from ``factor``, in standard errors."""
    if not (math.isfinite(test.std) and test.std and math.isfinite(factor)):
        return test.std
    error = math.log(test.ratio) / test.std
    return math.log(test.ratio / factor) / error


def _is_drawn(tensor: TensorComparison, found: PairStatistics) -> bool:
    return tensor.kind in RANDOM or (tensor.kind == OTHER and max(found.left.std, found.right.std) > 0)


def _one_std(predicted: list[float | None]) -> float | None:
    """What a layer type's tensors have in common: their predicted deviation, where it is known of all."""
    known = [std for std in predicted if std is not None]
    return math.sqrt(sum(std * std for std in known) / len(known)) if known and len(known) == len(predicted) else None


# Where two models come from, by what they say themselves: seeds, init methods, precision, data, random states.


# of GPT-NeoX; what decides the initial weights and what they were then trained on
_OPTIONS = (
    *("seed", "init_method", "output_layer_init_method", "init_method_std", "precision", "fp16", "bf16"),
    *("model_parallel_size", "pipe_parallel_size", "train_data_paths", "data_path"),
    *("num_layers", "hidden_size", "num_attention_heads", "optimizer", "train_iters"),
)
# of a Hugging Face config; spellings of both transformers 4 and 5 name the same thing, so one of each
_CONFIG = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "vocab_size", "max_position_embeddings", "hidden_act", "use_parallel_residual"),
    *("tie_word_embeddings", "torch_dtype"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that both sides state, and state otherwise."""

    name: str
    left: str
    right: str


def differences(left: SideFacts, right: SideFacts) -> tuple[Difference, ...]:
    """What the sides say of themselves and do not agree on: options, where both have them, else configs."""
    ours, theirs = left.account, right.account
    both_raw = bool(ours.options and theirs.options)
    pairs = (ours.options, theirs.options) if both_raw else (ours.config, theirs.config)
    return tuple(_differences(*pairs, _OPTIONS if both_raw else _CONFIG))


def _differences(left: Mapping[str, Any], right: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Difference]:
    for name in names:
        one, other = left.get(name), right.get(name)
        if one != other and not (one is None or other is None):
            yield Difference(name, _short(one), _short(other))


def origin_reasons(left: SideFacts, right: SideFacts) -> tuple[str, ...]:
    """What explains a verdict, in sentences: differing statements, equal seeds, random states."""
    found = [f"{each.name} differs: {each.left} / {each.right}" for each in differences(left, right)]
    return (*found, *_seed(left, right), *_states(left, right))


def _seed(left: SideFacts, right: SideFacts) -> Iterator[str]:
    seeds = (left.account.options.get("seed"), right.account.options.get("seed"))
    if seeds[0] is not None and seeds[0] == seeds[1]:
        yield f"both configs have seed {seeds[0]}"


def _states(left: SideFacts, right: SideFacts) -> Iterator[str]:
    """Training without dropout never draws from the tracker, so its state is that of the start, at any step."""
    for name in sorted(left.account.states.keys() & right.account.states.keys()):
        if name.startswith("tracker:"):
            same = left.account.states[name] == right.account.states[name]
            yield f"the stored state of {name.removeprefix('tracker:')} is {'the same' if same else 'another'}"
    origins = (left.account.origin, right.account.origin)
    if origins[0] is not None and origins[1] is not None:
        yield from state_differences(origins[0], origins[1])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


IDENTICAL, EQUAL_ZEROS = "identical", "equal-up-to-zero-sign"
SAME_INIT, OTHER_INIT = "same-init-different-rng", "different-init"
TRAINED, NOT_COMPARABLE = "trained-apart", "not-comparable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the names above, and what it rests on."""

    name: str
    reasons: tuple[str, ...]


def judge(comparison: Comparison, evidence: Evidence) -> Verdict:
    """The verdict on a comparison."""
    name, reasons = _judge(comparison, evidence)
    everything = [*reasons, *_dtypes(comparison), *origin_reasons(comparison.left, comparison.right)]
    return Verdict(name, tuple(everything))


def _judge(comparison: Comparison, evidence: Evidence) -> tuple[str, list[str]]:
    if odd := list(_not_comparable(comparison)):
        return NOT_COMPARABLE, odd
    equal, signs = comparison.count(BITWISE), comparison.count(ZERO_SIGN)
    if equal == comparison.common:
        return IDENTICAL, [f"all {equal} tensors are equal bit for bit"]
    if equal + signs == comparison.common:
        named = some(tensor.name for tensor in comparison.tensors if tensor.outcome == ZERO_SIGN)
        return EQUAL_ZEROS, [f"{signs} of {comparison.common} tensors differ in the sign of zeros only: {named}"]
    initial = [evidence.at_initialisation(side) for side in ("left", "right")]
    if not all(initial):
        return TRAINED, list(_trained(comparison, evidence, initial))
    if faults := [*_not_finite(comparison), *_other_constants(evidence), *_other_stds(evidence), *_mixture(evidence)]:
        return OTHER_INIT, faults
    if evidence.correlated:
        return TRAINED, list(_derived(evidence))
    return SAME_INIT, list(_same_init(comparison, evidence))


def _not_comparable(comparison: Comparison) -> Iterator[str]:
    texts = {
        ONLY_LEFT: f"only {comparison.left.where} has",
        ONLY_RIGHT: f"only {comparison.right.where} has",
        SHAPE: "the shapes differ of",
    }
    for outcome, text in texts.items():
        if names := [tensor.name for tensor in comparison.tensors if tensor.outcome == outcome]:
            yield f"{text} {some(names)}"
    if not comparison.tensors:
        yield "neither side has a tensor"


def _not_finite(comparison: Comparison) -> Iterator[str]:
    for tensor, found in comparison.compared.values():
        for side, values in (("left", found.left), ("right", found.right)):
            if values.nans or values.infinities:
                yield f"{tensor.name} has {values.nans:,} NaN and {values.infinities:,} infinite values on the {side}"


def _other_constants(evidence: Evidence) -> Iterator[str]:
    odd = [(t, f) for t, f in evidence.constant.values() if t.outcome == DIFFERENT]
    for tensor, found in odd[:4]:
        yield (
            f"{tensor.name}, which initialisation sets, differs: mean {found.left.mean:.6g} / {found.right.mean:.6g}, "
            f"{found.unequal:,} of {found.left.elements:,} values"
        )
    if len(odd) > 4:
        yield f"so do {len(odd) - 4} other norms and biases"


def _other_stds(evidence: Evidence) -> Iterator[str]:
    for each in evidence.odd_types:
        yield (
            f"{each.name}: std {each.left.std:.6g} / {each.right.std:.6g}, factor {each.ratio:.4f}, "
            f"{abs(each.departure):.1f} standard errors where chance reaches {evidence.limit:.1f}"
        )
    yield from _tests(evidence, evidence.odd_stds, "std")
    yield from _tests(evidence, evidence.odd_means, "mean")


def _tests(evidence: Evidence, tests: Sequence[TensorTests], what: str) -> Iterator[str]:
    for test in tests[:4]:
        departure, found = abs(getattr(test, what)), evidence.comparison.compared[test.name][1]
        far = f"{departure:.1f} standard errors apart where chance reaches {evidence.limit:.1f}"
        values = f"{getattr(found.left, what):.6g} / {getattr(found.right, what):.6g}"
        yield f"{test.name}: {what} {values}, {far if math.isfinite(departure) else 'a constant on one side'}"
    if len(tests) > 4:
        yield f"so does that of {len(tests) - 4} other tensors"


def _mixture(evidence: Evidence) -> Iterator[str]:
    """Some random tensors shared, others independent: the weights of one side are of two models."""
    correlated = {test.name for test in evidence.correlated}
    apart = [test.name for test in evidence.tests if test.name not in correlated]
    shared = [name for name in evidence.drawn if name not in apart]
    if shared and apart:
        yield (
            f"{len(shared)} random tensors have a common origin ({some(shared)}) and {len(apart)} have none "
            f"({some(apart)})"
        )


def _same_init(comparison: Comparison, evidence: Evidence) -> Iterator[str]:
    constants, drawn = len(evidence.constant), len(evidence.drawn)
    layers = len(by_layer(comparison.compared).keys() - {None})
    rule = ""
    if (constants, constants + drawn) == (8 * layers + 2, 12 * layers + 4):
        rule = f": 8 L + 2 of 12 L + 4, as GPT-NeoX has them in L = {layers} layers"
    yield f"{constants} of {comparison.common} tensors are set, not drawn, and identical{rule}"
    strongest = max(evidence.tests, key=lambda test: abs(test.correlation))
    found = evidence.comparison.compared[strongest.name][1]
    yield (
        f"{drawn} random tensors are uncorrelated: at most {abs(strongest.correlation):.1f} standard errors "
        f"(r = {found.correlation:+.5f}, {strongest.name}), where chance reaches {evidence.limit:.1f}"
    )
    widest = max(evidence.tests, key=lambda test: abs(test.std))
    yield (
        f"their standard deviations agree: at most {abs(widest.std):.1f} standard errors apart "
        f"(ratio {widest.ratio:.4f}, {widest.name}), corrected for {drawn} tensors"
    )


def _derived(evidence: Evidence) -> Iterator[str]:
    named = some(test.name for test in evidence.correlated)
    yield f"norms and biases are still as they were set, and {len(evidence.correlated)} tensors are correlated: {named}"
    yield "one side derives from the other, or both from a third, by little training or by rounding"


def _trained(comparison: Comparison, evidence: Evidence, initial: Sequence[bool]) -> Iterator[str]:
    sides = ", ".join(
        f"{side} {'is at initialisation' if flat else 'is trained'}"
        for side, flat in zip(("left", "right"), initial, strict=True)
    )
    yield f"by its norms and biases, {sides}"
    differences = [f.max_abs_diff for t, f in comparison.compared.values() if t.outcome == DIFFERENT]
    yield (
        f"{len(differences)} of {comparison.common} tensors differ, their largest differences from "
        f"{min(differences):.3g} to {max(differences):.3g}"
    )
    correlations = sorted(f.correlation for _, f in evidence.drawn.values() if f.correlation == f.correlation)
    if correlations:
        low, middle, high = correlations[0], correlations[len(correlations) // 2], correlations[-1]
        yield f"correlation of the matrices: {low:.3f} to {high:.3f}, median {middle:.3f}"
    yield from _not_finite(comparison)


def _dtypes(comparison: Comparison) -> Iterator[str]:
    kinds = {
        (tensor.left.dtype, tensor.right.dtype)
        for tensor, _ in comparison.compared.values()
        if tensor.left and tensor.right and tensor.left.dtype != tensor.right.dtype
    }
    for left, right in sorted(kinds):
        yield f"dtypes differ ({left} / {right}): such tensors are compared by value"
