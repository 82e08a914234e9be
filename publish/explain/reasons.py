"""The reasons of an answer, in sentences: what fits, what does not, and what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from publish.explain import locate_cpu, locate_cuda
from publish.explain.answer import TensorResult
from publish.explain.candidate import DEFAULT, Candidate
from publish.explain.matching import SLACK, Tally
from publish.explain.place import Place
from publish.explain.stored import Constructed, constructed
from publish.explain.subject import Shard, Subject
from publish.neox.randomstate import CPU, CUDA

FEW = 8  # tensors that are named one by one
_SAME_KIND = "torch's CPU kernels differ by such a unit between kinds of processors, and so does a changed value"


def of_trial(subject: Subject, candidate: Candidate, place: Place, results: Sequence[TensorResult]) -> Iterator[str]:
    """Why the weights are those of ``place``, and what of them is not."""
    seed = place.seed - candidate.generator_seed(0)
    yield f"seed {seed} {candidate.source} {_seeding(candidate, place)}"
    whole = [result for result in results if result.explained]
    total = sum((result.tally for result in whole), Tally())
    equal = "all" if total.equal == total.values else f"{total.equal:,} of"
    yield f"{len(whole)} of {len(results)} tensors are what it draws: {equal} {total.values:,} values are bit-equal"
    if total.equal < total.values:
        yield _fast(total)
    shards = {shard.shown: shard for shard in subject.shards[0].values()}
    odd = [result for result in results if not result.explained]
    for result in odd[:FEW]:
        yield _odd(result, shards[result.name], subject.tensor_parallel)
    if len(odd) > FEW:
        yield f"so do {len(odd) - FEW} more tensors: {', '.join(result.name for result in odd[FEW:])}"
    for name in subject.unknown:
        yield f"{name} is drawn by a rule that is not in the table of constructions, so it was not recomputed"
    if place.generator == CUDA and not place.told:
        yield f"no tensor tells the GPU: they are as they would be on any that holds {place.resident:,} threads or more"


def _seeding(candidate: Candidate, place: Place) -> str:
    if candidate.origin == DEFAULT:
        return f"seeds the default {place.generator} generator, which use_cpu_initialization draws from"
    return f"seeds rank 0's {place.generator} generator with {place.seed}"


def _fast(total: Tally) -> str:
    near = f" and {total.near:,} more by at most 2^-16 standard deviations" if total.near else ""
    assert SLACK == 2.0**-16
    return (
        f"{total.one_apart:,} values are one unit in the last place apart{near}, as the fast sine and cosine of a GPU "
        "make them; a value changed by so little would not be told from that"
    )


def _odd(result: TensorResult, shard: Shard, ranks: int) -> str:
    tally = result.tally
    differ = f"{result.different:,} of {tally.values:,} values differ"
    if tally.equal * 2 < tally.values:
        return f"{result.name} is not what was drawn there: {differ}"
    assert result.first_different is not None
    row, column = divmod(result.first_different, shard.shape[-1])
    place = f"the first at row {row:,}, column {column:,}{' of its shard' if ranks > 1 else ''}"
    if tally.wrong == 0:
        return f"{result.name}: {differ} by a unit in the last place or little more, {place}; {_SAME_KIND}"
    return f"{result.name} was changed after it was drawn: {differ}, {place}"


def constructions(subject: Subject) -> tuple[Constructed, ...]:
    """What the first stored state tells; nothing for pipelines of several stages, whose share of tensors is unknown."""
    state = next((state for state in subject.states if state is not None), None)
    if state is None or subject.stages != 1:
        return ()
    return constructed({name: shard.elements for name, shard in subject.shards[0].items()}, state)


def of_failure(
    subject: Subject,
    tried: Sequence[tuple[Subject, Candidate]],
    found: Sequence[Constructed],
    results: Sequence[TensorResult],
) -> Iterator[str]:
    """What was tried, with ranges, and why it may have failed; no guess."""
    yield from subject.notes
    if subject.iteration:
        yield f"the weights were trained for {subject.iteration:,} iterations, so they no longer are what was drawn"
    state = next((state for state in subject.states if state is not None), None)
    if state is not None:
        yield _state(state.seed, found)
    shards = {shard.shown: shard for shard in subject.shards[0].values()}
    for result in results[:1]:
        yield _odd(result, shards[result.name], subject.tensor_parallel)
    if not results:
        names = tuple(shards)
        yield f"none of the {len(names)} tensors ({', '.join(names[:3])}, ...) begins as the seeds tried would draw it"
    for part, candidate in tried:
        yield f"tried: {_tried(part, candidate)}"


def _state(seed: int, found: Sequence[Constructed]) -> str:
    if not found:
        return f"the stored state, seeded with {seed}, is not that after one to three constructions of this model"
    times = " or ".join(
        f"{one.times} construction{'s' if one.times > 1 else ''}"
        + (f" on {', '.join(one.devices)}" if one.devices else "")
        for one in found
    )
    return f"the stored state is that of a generator seeded with {seed} after {times} of this model"


def _tried(subject: Subject, candidate: Candidate) -> str:
    seeds = candidate.seeds
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds):,} seeds from {min(seeds)} to {max(seeds)}"
    ranks = f", {subject.tensor_parallel} tensor-parallel ranks" if subject.tensor_parallel > 1 else ""
    return (
        f"{named} {candidate.source}, {candidate.generator} ({candidate.origin}), {_range(subject, candidate)}{ranks}"
    )


def _range(subject: Subject, candidate: Candidate) -> str:
    few = len(candidate.seeds) <= FEW
    if candidate.generator == CPU:
        starts = sorted(locate_cpu.likely_starts(subject))
        if few:
            return f"positions 0 to {max(starts[-1], locate_cpu.reach(subject)):,}"
        return f"positions {starts[0]:,} and {starts[1]:,}"
    if few:
        return f"offsets 0 to {locate_cuda.REACH:,}"
    return f"offsets 0 to {locate_cuda.NEAR:,} and those that known GPUs leave after one or two constructions"
