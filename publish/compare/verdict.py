"""How two models are related, by statistical tests of their tensors and by what they state of their origin.

All tests of one comparison share an error rate of `ERROR_RATE` (Bonferroni). A z-score is a departure from what two
independent draws of one distribution would show, in standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

from publish.compare.model import OTHER, RANDOM, TYPES, Provenance, by_layer
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
    TensorComparison,
)
from publish.explain.explain import Answer
from publish.explain.stored import rng_differences
from publish.records.manifest import Note, note

IDENTICAL, EQUAL_ZEROS = "identical", "equal-up-to-zero-sign"
SAME_INIT, OTHER_INIT = "same-init-different-rng", "different-init"
TRAINED, NOT_COMPARABLE = "trained-apart", "not-comparable"

ERROR_RATE = 1e-3
NORMAL_KURTOSIS = 3.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """Several tensors as one sample: ``std`` is the deviation within the tensors, NaN if no element is finite."""

    elements: int
    std: float
    kurtosis: float


def pool(distributions: Iterable[Distribution]) -> Pooled:
    """One sample of several tensors, whose means may differ."""
    parts = [part for part in distributions if part.finite]
    elements = sum(part.finite for part in parts)
    if not elements:
        return Pooled(0, math.nan, math.nan)
    std = math.sqrt(sum(part.finite * part.std**2 for part in parts) / elements)
    weight = sum(part.finite for part in parts if part.std > 0)
    kurtosis = sum(part.finite * part.kurtosis for part in parts if part.std > 0) / weight if weight else math.nan
    return Pooled(elements, std, kurtosis)


def significance_limit(tests: int) -> float:
    """The z-score that chance exceeds in any of ``tests`` with a probability of `ERROR_RATE`."""
    return NormalDist().inv_cdf(1 - ERROR_RATE / (2 * max(1, tests)))


def ratio_error(left: Pooled, right: Pooled) -> float:
    """The standard error of log(left std / right std) for two draws of one distribution."""
    kurtosis = max(NORMAL_KURTOSIS, *(side.kurtosis for side in (left, right) if not math.isnan(side.kurtosis)))
    return math.sqrt((kurtosis - 1) / 4 * (1 / left.elements + 1 / right.elements))


def ratio_z(left: Pooled, right: Pooled) -> float:
    """The z-score of log(left std / right std); infinite if only one side is constant, 0 if both are."""
    if not (left.elements and right.elements):
        return math.nan
    if left.std == 0 or right.std == 0:
        return 0.0 if left.std == right.std else math.copysign(math.inf, left.std - right.std)
    return math.log(left.std / right.std) / ratio_error(left, right)


def mean_z(left: Distribution, right: Distribution) -> float:
    """The z-score of the difference of the means."""
    error = math.sqrt(left.std**2 / max(1, left.finite) + right.std**2 / max(1, right.finite))
    return (left.mean - right.mean) / error if error else 0.0


def correlation_z(correlation: float, elements: int) -> float:
    """The z-score of a correlation (Fisher's transform, variance 1 / (n - 3)); NaN for a constant."""
    if math.isnan(correlation) or elements <= 3:
        return math.nan
    clipped = max(-1 + 1e-15, min(1 - 1e-15, correlation))
    return math.atanh(clipped) * math.sqrt(elements - 3)


@dataclass(frozen=True, slots=True)
class TypeComparison:
    """All tensors of one layer type. ``ratio`` and its ``error`` are NaN if a side is constant.

    ``expected``: the standard deviations that the init methods of the two sides predict, None if they are unknown.
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
        """The standard error of the ratio for two draws of one distribution."""
        return self.ratio * ratio_error(self.left, self.right) if math.isfinite(self.ratio) else math.nan

    @property
    def z(self) -> float:
        return ratio_z(self.left, self.right)


@dataclass(frozen=True, slots=True)
class TensorTests:
    """The z-scores of one random tensor, and the ``ratio`` of its standard deviations."""

    name: str
    layer_type: str
    std_z: float
    mean_z: float
    correlation_z: float
    ratio: float


@dataclass(frozen=True)
class ComparisonTests:
    """The statistical tests of one comparison."""

    comparison: Comparison

    @cached_property
    def random(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        """The tensors that initialisation draws, by name."""
        return {name: found for name, found in self.comparison.compared.items() if _is_random(*found)}

    @cached_property
    def constant(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        """The tensors that initialisation sets to a constant, by name."""
        return {name: found for name, found in self.comparison.compared.items() if name not in self.random}

    @cached_property
    def types(self) -> tuple[TypeComparison, ...]:
        """By layer type, in the order of `TYPES`; types without tensors are left out."""
        sides = (self.comparison.left.provenance.expected_std, self.comparison.right.provenance.expected_std)
        types = []
        for kind in TYPES:
            members = [found for found in self.comparison.compared.values() if found[0].layer_type == kind]
            if members:
                left = pool(statistics.left for _, statistics in members)
                right = pool(statistics.right for _, statistics in members)
                expected = [_pooled_std([side.get(tensor.name) for tensor, _ in members]) for side in sides]
                types.append(TypeComparison(kind, left, right, (expected[0], expected[1])))
        return tuple(types)

    @cached_property
    def tensors(self) -> tuple[TensorTests, ...]:
        """The random tensors that differ; equal ones need no test."""
        return tuple(
            TensorTests(
                tensor.name,
                tensor.layer_type,
                ratio_z(pool([found.left]), pool([found.right])),
                mean_z(found.left, found.right),
                correlation_z(found.correlation, min(found.left.finite, found.right.finite)),
                found.left.std / found.right.std if found.right.std else math.nan,
            )
            for tensor, found in self.random.values()
            if tensor.outcome == DIFFERENT
        )

    @cached_property
    def limit(self) -> float:
        """The z-score that chance exceeds in none of these tests (see `significance_limit`)."""
        return significance_limit(3 * len(self.tensors) + sum(kind.name in RANDOM for kind in self.types))

    @property
    def deviating_types(self) -> tuple[TypeComparison, ...]:
        """Random layer types whose two standard deviations are of different distributions."""
        return tuple(kind for kind in self.types if kind.name in RANDOM and abs(kind.z) > self.limit)

    @property
    def deviating_stds(self) -> tuple[TensorTests, ...]:
        """Tensors of two standard deviations, unless their whole layer type is off by the same factor."""
        factors = {kind.name: kind.ratio for kind in self.deviating_types}
        return tuple(
            test
            for test in self.tensors
            if min(abs(test.std_z), abs(_z_from_factor(test, factors.get(test.layer_type, 1.0)))) > self.limit
        )

    @property
    def deviating_means(self) -> tuple[TensorTests, ...]:
        return tuple(test for test in self.tensors if abs(test.mean_z) > self.limit)

    @property
    def correlated(self) -> tuple[TensorTests, ...]:
        """Random tensors that differ and are correlated beyond chance."""
        return tuple(test for test in self.tensors if abs(test.correlation_z) > self.limit)

    def at_initialisation(self, side: str) -> bool:
        """Whether most norms and biases of a side (``left``, ``right``) are constant: the first update changes them."""
        values: list[Distribution] = [getattr(found, side) for _, found in self.constant.values()]
        flat = [value.std == 0 for value in values if value.finite]
        if flat:
            return sum(flat) > len(flat) / 2
        provenance: Provenance = getattr(self.comparison, side).provenance
        return provenance.step == 0


def _z_from_factor(test: TensorTests, factor: float) -> float:
    """The z-score of the difference between a tensor's ratio and ``factor``."""
    if not (math.isfinite(test.std_z) and test.std_z and math.isfinite(factor)):
        return test.std_z
    error = math.log(test.ratio) / test.std_z
    return math.log(test.ratio / factor) / error


def _is_random(tensor: TensorComparison, found: PairStatistics) -> bool:
    kind = tensor.layer_type
    return kind in RANDOM or (kind == OTHER and max(found.left.std, found.right.std) > 0)


def _pooled_std(predicted: list[float | None]) -> float | None:
    """The predicted standard deviation of several tensors together, if that of each is known."""
    known = [std for std in predicted if std is not None]
    return math.sqrt(sum(std * std for std in known) / len(known)) if known and len(known) == len(predicted) else None


# GPT-NeoX options that determine the initial weights, and what they were trained on
_OPTIONS = (
    *("seed", "init_method", "output_layer_init_method", "init_method_std", "precision", "fp16", "bf16"),
    *("model_parallel_size", "pipe_parallel_size", "train_data_paths", "data_path"),
    *("num_layers", "hidden_size", "num_attention_heads", "optimizer", "train_iters"),
)
# of a Hugging Face config; transformers 4 and 5 spell some otherwise, and one spelling is enough
_CONFIG = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "vocab_size", "max_position_embeddings", "hidden_act", "use_parallel_residual"),
    *("tie_word_embeddings", "torch_dtype"),
)
_TRACKER = "tracker:"  # how names of GPT-NeoX's own generators begin


@dataclass(frozen=True, slots=True)
class StatedDifference:
    """An option that both models state, with different values."""

    name: str
    left: str
    right: str


def stated_differences(left: Provenance, right: Provenance) -> tuple[StatedDifference, ...]:
    """The options on which the models disagree: GPT-NeoX's if both state them, else those of their configs."""
    both_raw = bool(left.options and right.options)
    ours, theirs = (left.options, right.options) if both_raw else (left.config, right.config)
    values = ((name, ours.get(name), theirs.get(name)) for name in (_OPTIONS if both_raw else _CONFIG))
    return tuple(
        StatedDifference(name, _short(one), _short(other))
        for name, one, other in values
        if one != other and one is not None and other is not None
    )


def provenance_reasons(left: Provenance, right: Provenance) -> Iterator[Note]:
    """How the origins of two models differ: random states first, then options.

    What a random state proves is not repeated from a config.
    """
    seeds = [side.options.get("seed") for side in (left, right)]
    proven = [None if side.rng_state is None else side.rng_state.seed for side in (left, right)]
    known = None not in proven
    differ = rng_differences(left.rng_state, right.rng_state) if left.rng_state and right.rng_state else ()
    yield from differ
    for name in sorted(left.states.keys() & right.states.keys()):
        if name.startswith(_TRACKER):
            generator = name.removeprefix(_TRACKER)
            if left.states[name] == right.states[name]:
                seed = {"seed": proven[0]} if known else {}
                yield note("same-state-seed" if known else "same-state", generator=generator, **seed)
            elif not differ:
                yield note("states-differ", generator=generator)
    for side, stated, run_seed in zip(("left", "right"), seeds, proven, strict=True):
        if known and stated not in (None, run_seed):
            yield note("stated-seed", side=side, stated=stated, seed=run_seed)
    if not known and seeds[0] is not None and seeds[0] == seeds[1]:
        yield note("same-stated-seed", seed=seeds[0])
    for difference in stated_differences(left, right):
        if difference.name != "seed" or not known:
            yield note("option-differs", name=difference.name, left=difference.left, right=difference.right)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


@dataclass(frozen=True, slots=True)
class Verdict:
    """How two models are related: one of the names above, and the reasons, the strongest first."""

    name: str
    reasons: tuple[Note, ...]


def verdict_of(tests: ComparisonTests, explained: Sequence[Answer] = ()) -> Verdict:
    """The verdict on a comparison by its tensors, and what explains it.

    ``explained``: the initial weights of both models as `publish.explain` recomputed them, if that was asked for.
    """
    comparison = tests.comparison
    name, reasons = _decide(comparison, tests)
    sides = [comparison.left.provenance, comparison.right.provenance]
    for number, answer in enumerate(explained):
        sides[number] = replace(sides[number], rng_state=answer.explanation.rng_state or sides[number].rng_state)
    origins = (*map(_recomputed, explained), *provenance_reasons(*sides))
    return Verdict(name, (*reasons, *_dtype_reasons(comparison), *origins))


def _recomputed(answer: Answer) -> Note:
    found = answer.explanation
    if found.rng_state is None:
        return note("not-reproduced", where=answer.where)
    seed, counts = found.rng_state.seed, {"bit_equal": found.bit_equal, "values": found.values}
    return note("recomputed", where=answer.where, outcome=found.outcome, seed=seed, **counts)


def _decide(comparison: Comparison, tests: ComparisonTests) -> tuple[str, Iterable[Note]]:
    if unmatched := list(_not_comparable(comparison)):
        return NOT_COMPARABLE, unmatched
    equal, signs, tensors = comparison.count(BITWISE), comparison.count(ZERO_SIGN), comparison.common
    if equal == tensors:
        return IDENTICAL, [note("bitwise-equal", tensors=tensors)]
    if equal + signs == tensors:
        return EQUAL_ZEROS, [note("zero-sign", count=signs, tensors=tensors, names=_names(comparison, ZERO_SIGN))]
    initial = [tests.at_initialisation(side) for side in ("left", "right")]
    if not all(initial):
        return TRAINED, _trained(comparison, tests, initial)
    if faults := [*_not_finite(comparison), *_constants_differ(tests), *_distributions_differ(tests), *_mixture(tests)]:
        return OTHER_INIT, faults
    if tests.correlated:
        names = tuple(test.name for test in tests.correlated)
        return TRAINED, [note("correlated", count=len(names), names=names), note("little-training")]
    return SAME_INIT, _same_init(comparison, tests)


def _names(comparison: Comparison, outcome: str) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in comparison.tensors if tensor.outcome == outcome)


def _not_comparable(comparison: Comparison) -> Iterator[Note]:
    for outcome, code in ((ONLY_LEFT, "only-left"), (ONLY_RIGHT, "only-right"), (SHAPE, "shape-mismatch")):
        if names := _names(comparison, outcome):
            yield note(code, count=len(names), names=names)
    if not comparison.tensors:
        yield note("no-tensors")


def _not_finite(comparison: Comparison) -> Iterator[Note]:
    for tensor, found in comparison.compared.values():
        for side, values in (("left", found.left), ("right", found.right)):
            if values.nans or values.infinities:
                counts = {"nans": values.nans, "infinities": values.infinities}
                yield note("not-finite", tensor=tensor.name, side=side, **counts)


def _constants_differ(tests: ComparisonTests) -> Iterator[Note]:
    differing = [(tensor, found) for tensor, found in tests.constant.values() if tensor.outcome == DIFFERENT]
    for tensor, found in differing[:4]:
        yield note(
            "constant-differs",
            tensor=tensor.name,
            unequal=found.unequal,
            elements=found.left.elements,
            left=found.left.mean,
            right=found.right.mean,
        )
    if len(differing) > 4:
        yield note("more-constants-differ", count=len(differing) - 4)


def _distributions_differ(tests: ComparisonTests) -> Iterator[Note]:
    for kind in tests.deviating_types:
        yield note(
            "type-std" if math.isfinite(kind.z) else "type-std-constant",
            layer_type=kind.name,
            left=kind.left.std,
            right=kind.right.std,
            ratio=kind.ratio,
            z=abs(kind.z),
            limit=tests.limit,
        )
    yield from _tensors_differ(tests, tests.deviating_stds, "std")
    yield from _tensors_differ(tests, tests.deviating_means, "mean")


def _tensors_differ(tests: ComparisonTests, deviating: Sequence[TensorTests], what: str) -> Iterator[Note]:
    for test in deviating[:4]:
        z, found = abs(getattr(test, f"{what}_z")), tests.comparison.compared[test.name][1]
        yield note(
            f"tensor-{what}" if math.isfinite(z) else f"tensor-{what}-constant",
            tensor=test.name,
            left=getattr(found.left, what),
            right=getattr(found.right, what),
            z=z,
            limit=tests.limit,
        )
    if len(deviating) > 4:
        yield note(f"more-tensors-{what}", count=len(deviating) - 4)


def _mixture(tests: ComparisonTests) -> Iterator[Note]:
    """Some random tensors shared, others independent: the weights of one side are of two models."""
    correlated = {test.name for test in tests.correlated}
    independent = tuple(test.name for test in tests.tensors if test.name not in correlated)
    shared = tuple(name for name in tests.random if name not in independent)
    if shared and independent:
        counts = {"shared_count": len(shared), "independent_count": len(independent)}
        yield note("mixture", shared=shared, independent=independent, **counts)


def _same_init(comparison: Comparison, tests: ComparisonTests) -> Iterator[Note]:
    constants, drawn = len(tests.constant), len(tests.random)
    layers = len(by_layer(comparison.compared).keys() - {None})
    as_neox = (constants, constants + drawn) == (8 * layers + 2, 12 * layers + 4)
    code = "constants-equal-neox" if as_neox else "constants-equal"
    yield note(code, count=constants, tensors=comparison.common, layers=layers)
    strongest = max(tests.tensors, key=lambda test: abs(test.correlation_z))
    yield note(
        "uncorrelated",
        count=drawn,
        z=abs(strongest.correlation_z),
        correlation=comparison.compared[strongest.name][1].correlation,
        tensor=strongest.name,
        limit=tests.limit,
    )
    widest = max(tests.tensors, key=lambda test: abs(test.std_z))
    yield note("stds-agree", z=abs(widest.std_z), ratio=widest.ratio, tensor=widest.name, limit=tests.limit)


def _trained(comparison: Comparison, tests: ComparisonTests, initial: Sequence[bool]) -> Iterator[Note]:
    yield note("both-trained" if not any(initial) else "right-trained" if initial[0] else "left-trained")
    correlations = sorted(found.correlation for _, found in tests.random.values() if not math.isnan(found.correlation))
    if correlations:
        low, middle, high = correlations[0], correlations[len(correlations) // 2], correlations[-1]
        yield note("correlations", smallest=low, largest=high, median=middle)
    largest = [found.max_abs_diff for tensor, found in comparison.compared.values() if tensor.outcome == DIFFERENT]
    counts = {"count": len(largest), "tensors": comparison.common}
    yield note("largest-differences", smallest=min(largest), largest=max(largest), **counts)
    yield from _not_finite(comparison)


def _dtype_reasons(comparison: Comparison) -> Iterator[Note]:
    pairs = {
        (tensor.left.dtype, tensor.right.dtype)
        for tensor, _ in comparison.compared.values()
        if tensor.left and tensor.right and tensor.left.dtype != tensor.right.dtype
    }
    for left, right in sorted(pairs):
        yield note("dtypes-differ", left=left, right=right)
