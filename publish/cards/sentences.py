"""The sentences and table cells for the values of a record: of a card, a terminal or an issue."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from publish.cards.details import CHECKPOINT, Fact
from publish.errors import CardError
from publish.neox.state import CPU
from publish.records.manifest import NOT_FINITE, ComparisonRecord, Explanation, Note
from publish.text import count, some

GATE_MEANINGS: Mapping[str, str] = {
    "identity": "the checkpoint itself says that it is this step",
    "completeness": "every tensor of the source is accounted for, and every tensor of the model is there",
    "file-length": "each weight file is as long as its header says",
    "bits": "the written tensors equal the source's, bit for bit",
    "finite": "no value is NaN or infinite",
    "strict-load": "transformers loads it with nothing missing or left over",
    "logits": "the logits equal those of the network that the checkpoint describes",
    "validation-logits": "the logits equal those that GPT-NeoX stored in the checkpoint",
    "claims": "what the release says of data, sizes, seed and schedule is what the checkpoint's config says",
    "repeats": "no two checkpoints share weights unless the release declares it",
    "lineage": "each checkpoint lies between its neighbours, and the weights jump only where the release declares it",
}

# One sentence for each code of a note. A list of names is shortened; ``{count:tensor}`` is a number with its noun.
_NOTES: Mapping[str, str] = {
    # how two models are related (compare/verdict.py)
    "bitwise-equal": "all {tensors:tensor} are equal bit for bit",
    "zero-sign": "{count} of {tensors:tensor} differ only in the sign of zeros: {names}",
    "only-left": "{count:tensor} only in the left model: {names}",
    "only-right": "{count:tensor} only in the right model: {names}",
    "shape-mismatch": "{count:tensor} of different shapes: {names}",
    "no-tensors": "neither model has a tensor",
    "not-finite": "{tensor} has {nans:,} NaN and {infinities:,} infinite values on the {side}",
    "constant-differs": "{tensor}, a constant at initialisation, differs in {unequal:,} of {elements:,} values: "
    "mean {left:.6g} / {right:.6g}",
    "more-constants-differ": "the same holds for {count:more tensor}",
    "type-std": "{layer_type}: std {left:.6g} / {right:.6g}, factor {ratio:.4f}, {z:.1f} standard errors, "
    "limit {limit:.1f}",
    "type-std-constant": "{layer_type}: std {left:.6g} / {right:.6g}, a constant on one side",
    "tensor-std": "{tensor}: std {left:.6g} / {right:.6g}, {z:.1f} standard errors, limit {limit:.1f}",
    "tensor-std-constant": "{tensor}: std {left:.6g} / {right:.6g}, a constant on one side",
    "tensor-mean": "{tensor}: mean {left:.6g} / {right:.6g}, {z:.1f} standard errors, limit {limit:.1f}",
    "more-tensors-std": "the std differs in {count:more tensor}",
    "more-tensors-mean": "the mean differs in {count:more tensor}",
    "mixture": "{shared_count:random tensor} of both models have a common origin ({shared}), and "
    "{independent_count} are independent ({independent})",
    "constants-equal": "{count} of {tensors:tensor} are constants at initialisation and equal",
    "constants-equal-neox": "{count} of {tensors:tensor} are constants at initialisation and equal, the 8 L + 2 of "
    "12 L + 4 that GPT-NeoX sets in L = {layers} layers",
    "uncorrelated": "the {count:random tensor} are uncorrelated: at most {z:.1f} standard errors "
    "(r = {correlation:+.5f}, {tensor}), limit {limit:.1f}",
    "stds-agree": "their standard deviations agree: at most {z:.1f} standard errors (ratio {ratio:.4f}, {tensor}), "
    "limit {limit:.1f}",
    "correlated": "correlated beyond chance in {count:random tensor}: {names}",
    "little-training": "norms and biases are as initialisation sets them, so little training or a rounding separates "
    "the models",
    "left-trained": "by norms and biases, left is trained, right is at initialisation",
    "right-trained": "by norms and biases, left is at initialisation, right is trained",
    "both-trained": "by norms and biases, both models are trained",
    "correlations": "the correlation of the matrices lies between {smallest:.3f} and {largest:.3f}, "
    "median {median:.3f}",
    "largest-differences": "{count} of {tensors:tensor} differ; their largest differences lie between {smallest:.3g} "
    "and {largest:.3g}",
    "dtypes-differ": "dtypes differ ({left} / {right}), so these tensors are compared by value",
    "not-reproduced": "the weights of {where} are not reproduced by a random state",
    "recomputed": "the weights of {where} are {outcome} from seed {seed}: {bit_equal:,} of {values:,} values bit for "
    "bit",
    "same-state": "both models store the same random state of {generator}",
    "same-state-seed": "both models store the same random state of {generator}, from seed {seed}",
    "states-differ": "the stored random states of {generator} differ",
    "stated-seed": "the config of {side} states seed {stated}, and its random state comes from seed {seed}",
    "same-stated-seed": "both configs state seed {seed}",
    "option-differs": "{name} differs: {left} / {right}",
    # how two random states differ (explain/stored.py)
    "seeds-differ": "the seeds differ: {left} and {right}",
    "generator-seeds-differ": "the generators are seeded with {left} and {right}",
    "generators-differ": "the generators differ: {left} and {right}, which draw different numbers from one seed",
    "ranks-differ": "the tensors are split across {left:tensor-parallel rank} and {right:tensor-parallel rank}, and "
    "each rank has its own seed",
    "draws-before-differ": "the draws before the first tensor differ: {left:number} and {right:number}",
    "offset-before-differs": "the draws before the first tensor differ: offsets {left:,} and {right:,}",
    "offset-after-differs": "the generators are at the offsets {left:,} and {right:,} afterwards: another GPU, another "
    "number of constructions, or another model",
    "gpu-threads-differ": "the GPUs hold {left:,} and {right:,} threads ({left_devices}; {right_devices}): tensors "
    "differ from element {first:,} on, later ones start at other offsets",
    "gpus-differ": "the GPUs differ: {left_devices}; {right_devices}",
    # what a conversion changes (convert/plan.py)
    "rmsnorm-epsilon": "the GPT-NeoX version of this run adds the RMSNorm epsilon ({epsilon}) outside the root, Llama "
    "inside it: logits deviate by up to about 1e-3",
    "sliding-window-needs-eager": "transformers 4.38 ignores the sliding window unless the model is loaded with "
    "attn_implementation='eager'",
    "sliding-window-left-out": "the sliding window of {window} is left out: the architecture was overridden",
    "architecture-overridden": "the architecture is {architecture} as requested; config and tensors are those of "
    "{natural}",
    "cast": "weights were cast from {source} to {dtype} as requested",
}


def sentence(note: Note) -> str:
    """A note in words, without a full stop.

    Raises:
        CardError: an unknown code, or a figure that its sentence needs is missing or of another type.
    """
    try:
        return _NOTES[note.code].format(**{name: _worded(value) for name, value in note.figures.items()})
    except (KeyError, IndexError, ValueError, TypeError) as error:
        what = f"there is no sentence for the note {note.code!r}: {error}"
        fix = "publish the step again, or use the version of this tool that published it"
        raise CardError(what, "the step's record", fix) from error


class _Number(int):
    """A whole number that is formatted with a noun: ``{tensors:tensor}``."""

    def __format__(self, spec: str) -> str:
        return count(self, spec) if spec[:1].isalpha() else format(int(self), spec)


def _worded(value: Any) -> Any:
    if isinstance(value, list):
        return some(value)
    if isinstance(value, int):
        return _Number(value)
    return float(value) if value in NOT_FINITE else value


# Two models compared.

VERDICTS: Mapping[str, str] = {
    "identical": "The same weights, bit for bit",
    "equal-up-to-zero-sign": "The same weights up to the sign of zeros",
    "same-init-different-rng": "The same initialisation, drawn from another random state",
    "different-init": "Initialised differently",
    "trained-apart": "Trained apart",
    "not-comparable": "Not the same tensors",
}
COUNTS = ("tensors", "bitwise_equal", "equal_up_to_zero_sign", "different", "only_left", "only_right", "shape_mismatch")


def verdict(comparison: ComparisonRecord) -> str:
    """The verdict in words, and its name."""
    return f"{VERDICTS.get(comparison.verdict, comparison.verdict)} ({comparison.verdict})"


def counts(comparison: ComparisonRecord) -> str:
    """The counts in words, without those that are 0."""
    numbers = ((getattr(comparison, name), name.replace("_", " ")) for name in COUNTS)
    return ", ".join(f"{number:,} {name}" for number, name in numbers if number)


def layer_type_table(comparison: ComparisonRecord) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the layer types; the last column is left out if no standard deviation is predicted."""
    header: tuple[str, ...] = ("Layer type", "Left std", "Right std", "Ratio", "Margin", "Predicted")
    rows: list[tuple[str, ...]] = [
        (
            layer_type.name,
            figure(layer_type.left_std),
            figure(layer_type.right_std),
            figure(layer_type.ratio),
            "" if (margin := comparison.margin(layer_type)) is None else f"\u00b1 {margin:.4f}",
            figure(layer_type.expected_std),
        )
        for layer_type in comparison.layer_types
    ]
    if all(layer_type.expected_std is None for layer_type in comparison.layer_types):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return header, rows


def figure(value: float | None) -> str:
    """Four decimals where that says something, else three digits; empty if there is no number."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"


# Which random state made the initial weights.

_RECOMPUTED = "recomputed"
_TWICE = (
    "GPT2ModelPipe.__init__ builds every layer, then to_sequential() builds every layer again from its specs, and "
    "the second set is the model (gpt-neox megatron/model/gpt2_model.py, called in megatron/training.py)"
)


def explanation_summary(explanation: Explanation) -> str:
    """An explanation that reproduced everything, in one sentence."""
    assert explanation.rng_state is not None
    device = "a CPU" if explanation.rng_state.generator == CPU else "a GPU"
    return (
        f"The initial weights were recomputed from seed {explanation.rng_state.seed}: they are what torch's generator "
        f"on {device} draws in GPT-NeoX's order of construction, value by value."
    )


def explanation_rows(explanation: Explanation) -> Iterator[Fact]:
    """The figures of an explanation that reproduced everything."""
    state = explanation.rng_state
    assert state is not None
    yield Fact("Random tensors", f"{explanation.tensors:,}, all reproduced", _RECOMPUTED)
    equal = f"{explanation.bit_equal:,} of {explanation.values:,} equal in every bit"
    yield Fact("Values", equal, _RECOMPUTED)
    if explanation.within_one_ulp != explanation.bit_equal:
        yield Fact("Within one unit in the last place", f"{explanation.within_one_ulp:,}", _RECOMPUTED)
    seeds = ", ".join(map(str, state.seeds))
    yield Fact("Generator", f"{state.generator}, seeded with {seeds}", _RECOMPUTED)
    yield Fact("Drawn before", drawn_before(explanation), _RECOMPUTED)
    if state.devices:
        threads = "any of many" if state.threads is None else f"{state.threads:,} threads"
        yield Fact("GPU", f"{' or '.join(state.devices)} ({threads})", _RECOMPUTED)
    yield Fact("Generator's stored state afterwards", explanation.stored_state, CHECKPOINT)


def drawn_before(explanation: Explanation) -> str:
    """What the generator had drawn before the first tensor, and why; empty where that is not known."""
    state = explanation.rng_state
    if state is None or state.preceding is None:
        return ""
    before = state.preceding
    amount = count(before.position, "number") if state.generator == CPU else f"offset {before.position:,}"
    if before.constructions == 0:
        return _nothing(explanation.layout)
    if before.constructions is not None:
        many = before.constructions > 1
        times = f"{before.constructions} whole constructions" if many else "one whole construction"
        return f"{times} of the same model ({amount}): {_why(explanation.layout, many=many)}"
    if before.tensors:
        others = f", as {len(before.tensors) - 1} others do" if len(before.tensors) > 1 else ""
        return f"as much as the tensor {before.tensors[0]} takes{others} ({amount})"
    return f"{amount}: neither a whole number of constructions of this model nor what one of its tensors takes"


def _nothing(layout: str | None) -> str:
    nothing = "nothing: the embedding is the first tensor drawn after the generator was seeded"
    if layout == "sequential":
        return f"{nothing}, although the sequential layout of GPT-NeoX draws every model twice and keeps the second set"
    pipeline = "the pipeline layout" if layout else "GPT-NeoX's pipeline layout"
    return f"{nothing}, as in {pipeline} (pipe-parallel-size 1 or more)"


def _why(layout: str | None, *, many: bool) -> str:
    if many:
        return "the model was built several times before"
    if layout == "pipeline":
        return (
            "the pipeline layout builds a model once, so this run built it once before, or the files were rewritten "
            f"from the sequential layout, where {_TWICE}"
        )
    sequential = "the sequential layout" if layout else "GPT-NeoX's sequential layout"
    return f"in {sequential} (pipe-parallel-size 0) {_TWICE}"
