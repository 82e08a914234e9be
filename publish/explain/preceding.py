"""What was drawn before the first tensor, in words, and why."""

from __future__ import annotations

from publish.explain.construction import BEFORE
from publish.explain.place import Place
from publish.explain.subject import Subject
from publish.explain.walk import positions
from publish.neox.randomstate import CPU

_TWICE = (
    "GPT2ModelPipe.__init__ builds every layer, then to_sequential() builds every layer again from its specs, and "
    "the second set is the model (gpt-neox megatron/model/gpt2_model.py, called in megatron/training.py)"
)


def describe(subject: Subject, place: Place) -> str:
    """One or two sentences; nothing is guessed where the amount fits nothing known."""
    shards = subject.shards[0]
    stream = place.stream(place.seed)
    size = positions(shards, stream)[""]
    unit = "numbers" if place.generator == CPU else "of the offset"
    if place.position == 0:
        return _nothing(subject)
    if place.position % size == 0:
        built = place.position // size
        times = "one whole construction" if built == 1 else f"{built} whole constructions"
        return f"{times} of the same model ({len(shards)} tensors, {place.position:,} {unit}): {_why(subject, built)}"
    alike = [shard.shown for shard in shards.values() if place.position == stream.after(shard, 0)]
    if alike:
        others = f", as {len(alike) - 1} others do" if len(alike) > 1 else ""
        return f"as much as the tensor {alike[0]} takes{others} ({place.position:,} {unit})"
    return f"{place.position:,} {unit}, which are no whole number of constructions of this model nor one of its tensors"


def _nothing(subject: Subject) -> str:
    first = next(iter(BEFORE))
    begun = f"nothing: {first} is the first that the generator drew after it was seeded"
    if subject.layout == "sequential":
        return f"{begun}, although the sequential layout of GPT-NeoX draws every model twice and keeps the second set"
    if subject.layout == "pipeline":
        return f"{begun}, as the pipeline layout (pipe-parallel-size 1 or more) has it"
    return f"{begun}, as GPT-NeoX's pipeline layout (pipe-parallel-size 1 or more) has it"


def _why(subject: Subject, built: int) -> str:
    if built > 1:
        return "the model was built several times before"
    if subject.layout == "pipeline":
        return (
            "the pipeline layout builds a model once, so this run built it once before, or the files were rewritten "
            f"from the sequential layout, where {_TWICE}"
        )
    layout = "the sequential layout" if subject.layout else "GPT-NeoX's sequential layout"
    return f"in {layout} (pipe-parallel-size 0) {_TWICE}"
