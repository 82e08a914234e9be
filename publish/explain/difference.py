"""How two random states differ, in sentences: generator, seed, ranks, what was drawn before, GPU."""

from __future__ import annotations

from collections.abc import Iterator

from publish.explain.answer import Origin
from publish.explain.stored import StoredGenerator
from publish.neox.randomstate import CPU, TRACKER

_KINDS = {CPU: "a CPU (mt19937)"}


def differences(left: Origin, right: Origin) -> tuple[str, ...]:
    """Every way in which the numbers of two models come from elsewhere; empty where they come from one state.

    What either side does not tell is not compared.
    """
    return tuple(_differences(left, right))


def _differences(left: Origin, right: Origin) -> Iterator[str]:
    if left.generator != right.generator:
        yield f"the generators differ: {_kind(left)} and {_kind(right)}, which draw other numbers from one seed"
    if left.seed != right.seed and None not in (left.seed, right.seed):
        yield f"the seeds differ: {left.seed} and {right.seed}"
    elif left.seeds[:1] != right.seeds[:1]:
        yield f"the generators are seeded with {left.seeds[0]} and {right.seeds[0]}"
    if len(left.seeds) != len(right.seeds):
        yield (
            f"the tensors are cut over {_ranks(left)} and {_ranks(right)}, each of which draws its own shard "
            "with a seed of its own"
        )
    if left.generator == right.generator:
        yield from _places(left, right)


def _places(left: Origin, right: Origin) -> Iterator[str]:
    """The same kind of generator, at different places or on different GPUs."""
    unit = "numbers drawn" if left.generator == CPU else "offset"
    if left.position is not None and right.position is not None and left.position != right.position:
        yield (
            f"other draws came before ({unit}: {left.position:,} and {right.position:,}). "
            f"Left: {left.preceding}. Right: {right.preceding}"
        )
    if left.after is not None and right.after is not None and left.after != right.after and left.position is None:
        yield (
            f"the generators stand at offsets {left.after:,} and {right.after:,} afterwards: another GPU, another "
            "number of constructions, or another model"
        )
    if left.threads != right.threads and None not in (left.threads, right.threads):
        first = min(left.threads or 0, right.threads or 0)
        yield (
            f"the GPUs hold {left.threads:,} and {right.threads:,} threads ({_devices(left)}; {_devices(right)}): "
            f"tensors differ from element {first:,} on, and later ones are drawn at other offsets"
        )
    elif left.devices and right.devices and not set(left.devices) & set(right.devices):
        yield f"the GPUs differ: {_devices(left)}; {_devices(right)}"


def _kind(origin: Origin) -> str:
    return _KINDS.get(origin.generator, "a GPU (Philox)")


def _ranks(origin: Origin) -> str:
    count = len(origin.seeds)
    return f"{count} tensor-parallel rank{'s' if count > 1 else ''}"


def _devices(origin: Origin) -> str:
    return " or ".join(origin.devices) or "none of the known GPUs"


def origin_of(stored: tuple[StoredGenerator, ...], tensor_parallel: int) -> Origin | None:
    """What the stored states alone tell, at any step; None where there is no state of the weights' generator."""
    weights = [each for each in stored if each.name == TRACKER][:tensor_parallel]
    if len(weights) < tensor_parallel:
        return None
    first = weights[0]
    return Origin(
        generator=first.state.generator,
        seed=first.run_seed,
        seeds=tuple(each.state.seed for each in weights),
        devices=tuple(dict.fromkeys(name for each in first.constructed for name in each.devices)),
        after=first.state.offset,
    )
