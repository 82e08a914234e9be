"""The reasons of an answer, in sentences: what fits, what does not, and what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from publish.explain import search_cpu, search_cuda
from publish.explain.answer import TensorResult
from publish.explain.matching import SLACK, Tally
from publish.explain.stored import DEFAULT, MOST, Candidate, Constructed, constructed, within_reach
from publish.explain.streams import Place, positions
from publish.explain.subject import Shard, Subject
from publish.neox.state import CPU, CUDA, RandomState

FEW = 8  # tensors that are named one by one
_SAME_KIND = "torch's CPU kernels differ by such a unit between kinds of processors, and so does a changed value"


def of_trial(
    subject: Subject, candidate: Candidate, place: Place, results: Sequence[TensorResult], begins: Sequence[str]
) -> Iterator[str]:
    """Why the weights are those of ``place``, and what of them is not; stages after the first ``begins`` there."""
    seed = place.seed - candidate.generator_seed(0)
    yield f"seed {seed} {candidate.source} {_seeding(candidate, place)}"
    if subject.seed not in (None, seed):
        yield f"the config states seed {subject.seed}, which is not what these weights were drawn with"
    if begins:
        yield f"pipeline stages with a freshly seeded generator each begin at {', '.join(begins)}"
    whole = [result for result in results if result.explained]
    total = sum((result.tally for result in whole), Tally())
    equal = "all" if total.equal == total.values else f"{total.equal:,} of"
    yield f"{len(whole)} of {len(results)} tensors are what it draws: {equal} {total.values:,} values are bit-equal"
    if total.equal < total.values:
        yield _fast(total)
    shards = {shard.shown: shard for shard in subject.shards[0].values()}
    odd = [result for result in results if not result.explained]
    for result in odd[:FEW]:
        yield _odd(result, shards[result.name])
    if len(odd) > FEW:
        yield f"the same holds of {len(odd) - FEW} more tensors: {', '.join(result.name for result in odd[FEW:])}"
    if odd:
        yield from _exchanged(subject, place, [result.name for result in odd[:FEW]])
        yield "so the weights as a whole are not what one initialisation draws: what differs was put there otherwise"
    for name in subject.unknown:
        yield f"{name} is drawn by a rule that is not in the table of constructions, so it was not recomputed"
    if place.generator == CUDA and not place.told:
        yield f"no tensor tells the GPU: they are as they would be on any that holds {place.resident:,} threads or more"


def _exchanged(subject: Subject, place: Place, names: Sequence[str]) -> Iterator[str]:
    """Which of the odd tensors begin as if drawn where another of them belongs; of one stage's ranks 0."""
    shards = {name: shard for name, shard in subject.shards[0].items() if shard.shown in names}
    stream = place.stream(place.seed)
    lie = positions(subject.shards[0], stream, place.position)
    for name, shard in shards.items():
        for other in shards:
            if other != name and stream.matches(shard, lie[other]):
                yield f"{shard.shown} begins as what is drawn for {shards[other].shown}"


def of_states(stored: Sequence[RandomState | None], ends: Mapping[int, RandomState]) -> Iterator[str]:
    """How the stored states differ from those that the generators end in, by number of the ``mp_rank`` file."""
    if len(stored) != len(ends):
        yield f"{len(stored)} states are stored, and this order of construction leaves {len(ends)}"
        return
    for number, state in enumerate(stored):
        if state is not None and not state.same_place(ends[number]):
            yield f"mp_rank_{number:02} stores {_shown(state)}; these weights' generator ends as {_shown(ends[number])}"


def _shown(state: RandomState) -> str:
    place = f"sha256 {sha256(state.raw).hexdigest()[:12]}" if state.offset is None else f"offset {state.offset:,}"
    return f"{state.generator} seeded with {state.seed} ({place})"


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


def _odd(result: TensorResult, shard: Shard) -> str:
    """How the first rank that differs does so."""
    rank = next(number for number, tally in enumerate(result.ranks) if result.different_in(tally))
    tally = result.ranks[rank]
    of_rank = f" of rank {rank}'s" if len(result.ranks) > 1 else " of"
    differ = f"{result.different_in(tally):,}{of_rank} {tally.values:,} values differ"
    if tally.wrong and tally.equal * 2 < tally.values:
        return f"{result.name} is not what was drawn there: {differ}"
    first = result.first_different(tally)
    assert first is not None
    row, column = divmod(first, shard.shape[-1])
    place = f"the first at row {row:,}, column {column:,}{' of the shard' if len(result.ranks) > 1 else ''}"
    if tally.wrong == 0:
        return f"{result.name}: {differ} by a unit in the last place or little more, {place}; {_SAME_KIND}"
    return f"{result.name} was changed after it was drawn: {differ}, {place}"


def constructions(subject: Subject) -> tuple[Constructed, ...]:
    """What the first stored state tells; nothing for pipelines of several stages, whose share of tensors is unknown."""
    state = next((state for state in subject.states if state is not None), None)
    if state is None or subject.stages != 1:
        return ()
    return constructed(_elements(subject), state)


def _elements(subject: Subject) -> dict[str, int]:
    return {name: shard.elements for name, shard in subject.shards[0].items()}


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
    if state is not None and subject.stages == 1:
        yield _state(subject, state, found)
    shards = {shard.shown: shard for shard in subject.shards[0].values()}
    for result in results[:1]:
        yield _odd(result, shards[result.name])
    if not results:
        names = tuple(shards)
        yield f"none of the {len(names)} tensors ({', '.join(names[:3])}, ...) begins as the seeds tried would draw it"
    for part, candidate in tried:
        yield f"tried: {_tried(part, candidate)}"


def _state(subject: Subject, state: RandomState, found: Sequence[Constructed]) -> str:
    if not found:
        most = MOST if state.generator == CUDA else within_reach(_elements(subject))
        return f"the stored state, seeded with {state.seed}, is not that after 1 to {most} constructions of this model"
    times = " or ".join(
        f"{one.times} construction{'s' if one.times > 1 else ''}"
        + (f" on {', '.join(one.devices)}" if one.devices else "")
        for one in found
    )
    return f"the stored state is that of a generator seeded with {state.seed} after {times} of this model"


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
        starts = sorted(search_cpu.likely_starts(subject))
        if few:
            reach = search_cpu.reach(subject)
            beyond = [f"{start:,}" for start in starts if start > reach]
            return f"positions 0 to {' and '.join([f'{reach:,}', *beyond])}"
        return f"positions {starts[0]:,} and {starts[1]:,}"
    if few:
        return f"offsets 0 to {search_cuda.REACH:,}"
    return f"offsets 0 to {search_cuda.NEAR:,} and those that known GPUs leave after one or two constructions"
