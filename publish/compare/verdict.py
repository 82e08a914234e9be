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
from publish.records.manifest import Note, note

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


def origin_reasons(left: SideFacts, right: SideFacts) -> tuple[Note, ...]:
    """What explains a verdict: differing statements, equal seeds, random states."""
    found = [note("statement-differs", name=d.name, left=d.left, right=d.right) for d in differences(left, right)]
    return (*found, *_seed(left, right), *_states(left, right))


def _seed(left: SideFacts, right: SideFacts) -> Iterator[Note]:
    seeds = (left.account.options.get("seed"), right.account.options.get("seed"))
    if seeds[0] is not None and seeds[0] == seeds[1]:
        yield note("same-seed", seed=seeds[0])


def _states(left: SideFacts, right: SideFacts) -> Iterator[Note]:
    """Training without dropout never draws from the tracker, so its state is that of the start, at any step."""
    for name in sorted(left.account.states.keys() & right.account.states.keys()):
        if name.startswith("tracker:"):
            same = left.account.states[name] == right.account.states[name]
            yield note("same-state" if same else "other-state", generator=name.removeprefix("tracker:"))
    generators = (left.account.generator, right.account.generator)
    if generators[0] is not None and generators[1] is not None:
        yield from state_differences(generators[0], generators[1])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


IDENTICAL, EQUAL_ZEROS = "identical", "equal-up-to-zero-sign"
SAME_INIT, OTHER_INIT = "same-init-different-rng", "different-init"
TRAINED, NOT_COMPARABLE = "trained-apart", "not-comparable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the names above, and what it rests on; ``publish.cards.sentences`` has the words for both."""

    name: str
    reasons: tuple[Note, ...]


def judge(comparison: Comparison, evidence: Evidence) -> Verdict:
    """The verdict on a comparison."""
    name, reasons = _judge(comparison, evidence)
    everything = [*reasons, *_dtypes(comparison), *origin_reasons(comparison.left, comparison.right)]
    return Verdict(name, tuple(everything))


def _judge(comparison: Comparison, evidence: Evidence) -> tuple[str, list[Note]]:
    if odd := list(_not_comparable(comparison)):
        return NOT_COMPARABLE, odd
    equal, signs, tensors = comparison.count(BITWISE), comparison.count(ZERO_SIGN), comparison.common
    if equal == tensors:
        return IDENTICAL, [note("bitwise-equal", tensors=tensors)]
    if equal + signs == tensors:
        names = tuple(tensor.name for tensor in comparison.tensors if tensor.outcome == ZERO_SIGN)
        return EQUAL_ZEROS, [note("zero-sign", count=signs, tensors=tensors, names=names)]
    initial = [evidence.at_initialisation(side) for side in ("left", "right")]
    if not all(initial):
        return TRAINED, list(_trained(comparison, evidence, initial))
    if faults := [*_not_finite(comparison), *_other_constants(evidence), *_other_stds(evidence), *_mixture(evidence)]:
        return OTHER_INIT, faults
    if evidence.correlated:
        names = tuple(test.name for test in evidence.correlated)
        return TRAINED, [note("correlated", count=len(names), names=names), note("derived")]
    return SAME_INIT, list(_same_init(comparison, evidence))


def _not_comparable(comparison: Comparison) -> Iterator[Note]:
    for outcome, code in ((ONLY_LEFT, "only-left"), (ONLY_RIGHT, "only-right"), (SHAPE, "shape-mismatch")):
        if names := tuple(tensor.name for tensor in comparison.tensors if tensor.outcome == outcome):
            yield note(code, names=names)
    if not comparison.tensors:
        yield note("no-tensors")


def _not_finite(comparison: Comparison) -> Iterator[Note]:
    for tensor, found in comparison.compared.values():
        for side, values in (("left", found.left), ("right", found.right)):
            if values.nans or values.infinities:
                nans, infinities = values.nans, values.infinities
                yield note("not-finite", tensor=tensor.name, nans=nans, infinities=infinities, side=side)


def _other_constants(evidence: Evidence) -> Iterator[Note]:
    odd = [(t, f) for t, f in evidence.constant.values() if t.outcome == DIFFERENT]
    for tensor, found in odd[:4]:
        yield note(
            "constant-differs",
            tensor=tensor.name,
            left=found.left.mean,
            right=found.right.mean,
            unequal=found.unequal,
            elements=found.left.elements,
        )
    if len(odd) > 4:
        yield note("more-constants-differ", count=len(odd) - 4)


def _other_stds(evidence: Evidence) -> Iterator[Note]:
    for each in evidence.odd_types:
        yield note(
            "type-std" if math.isfinite(each.departure) else "type-std-constant",
            layer_type=each.name,
            left=each.left.std,
            right=each.right.std,
            ratio=each.ratio,
            departure=abs(each.departure),
            limit=evidence.limit,
        )
    yield from _tests(evidence, evidence.odd_stds, "std")
    yield from _tests(evidence, evidence.odd_means, "mean")


def _tests(evidence: Evidence, tests: Sequence[TensorTests], what: str) -> Iterator[Note]:
    for test in tests[:4]:
        departure, found = abs(getattr(test, what)), evidence.comparison.compared[test.name][1]
        yield note(
            f"tensor-{what}" if math.isfinite(departure) else f"tensor-{what}-constant",
            tensor=test.name,
            left=getattr(found.left, what),
            right=getattr(found.right, what),
            departure=departure,
            limit=evidence.limit,
        )
    if len(tests) > 4:
        yield note(f"more-tensor-{what}", count=len(tests) - 4)


def _mixture(evidence: Evidence) -> Iterator[Note]:
    """Some random tensors shared, others independent: the weights of one side are of two models."""
    correlated = {test.name for test in evidence.correlated}
    apart = tuple(test.name for test in evidence.tests if test.name not in correlated)
    shared = tuple(name for name in evidence.drawn if name not in apart)
    if shared and apart:
        counts = {"shared_count": len(shared), "independent_count": len(apart)}
        yield note("mixture", shared=shared, independent=apart, **counts)


def _same_init(comparison: Comparison, evidence: Evidence) -> Iterator[Note]:
    constants, drawn = len(evidence.constant), len(evidence.drawn)
    layers = len(by_layer(comparison.compared).keys() - {None})
    as_neox = (constants, constants + drawn) == (8 * layers + 2, 12 * layers + 4)
    code = "constants-identical-neox" if as_neox else "constants-identical"
    yield note(code, count=constants, tensors=comparison.common, layers=layers)
    strongest = max(evidence.tests, key=lambda test: abs(test.correlation))
    yield note(
        "uncorrelated",
        count=drawn,
        departure=abs(strongest.correlation),
        correlation=evidence.comparison.compared[strongest.name][1].correlation,
        tensor=strongest.name,
        limit=evidence.limit,
    )
    widest = max(evidence.tests, key=lambda test: abs(test.std))
    yield note("stds-agree", departure=abs(widest.std), ratio=widest.ratio, tensor=widest.name, count=drawn)


def _trained(comparison: Comparison, evidence: Evidence, initial: Sequence[bool]) -> Iterator[Note]:
    yield note("both-trained" if not any(initial) else "right-trained" if initial[0] else "left-trained")
    found = [f.max_abs_diff for t, f in comparison.compared.values() if t.outcome == DIFFERENT]
    counts = {"count": len(found), "tensors": comparison.common}
    yield note("largest-differences", smallest=min(found), largest=max(found), **counts)
    correlations = sorted(f.correlation for _, f in evidence.drawn.values() if f.correlation == f.correlation)
    if correlations:
        low, middle, high = correlations[0], correlations[len(correlations) // 2], correlations[-1]
        yield note("correlations", smallest=low, largest=high, median=middle)
    yield from _not_finite(comparison)


def _dtypes(comparison: Comparison) -> Iterator[Note]:
    kinds = {
        (tensor.left.dtype, tensor.right.dtype)
        for tensor, _ in comparison.compared.values()
        if tensor.left and tensor.right and tensor.left.dtype != tensor.right.dtype
    }
    for left, right in sorted(kinds):
        yield note("dtypes", left=left, right=right)
