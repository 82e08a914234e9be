"""What two models are to each other, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from publish.compare.comparison import ONLY_LEFT, ONLY_RIGHT, SHAPE, Comparison
from publish.compare.evidence import Evidence, TensorTests
from publish.compare.layers import by_layer
from publish.compare.origins import origin_reasons
from publish.compare.pair import BITWISE, DIFFERENT, ZERO_SIGN
from publish.verify.gate import some

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
