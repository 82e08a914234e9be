"""The reasons of an answer in sentences: what fits, what does not, and what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

from publish.explain.models import InitialModel, Shard
from publish.explain.replay import DIFFERENT, TensorResult, Trial
from publish.explain.search import GPU_NEAR, GPU_REACH, cpu_reach, likely_starts
from publish.explain.stored import (
    DEFAULT,
    MOST_CONSTRUCTIONS,
    Candidate,
    Constructions,
    constructions_before,
    constructions_within_reach,
)
from publish.explain.streams import StreamPosition, Tally, positions
from publish.neox.state import CPU, CUDA, RandomState
from publish.text import count

FEW = 8  # tensors that are named one by one, and seeds whose whole reach is searched


def trial_reasons(trial: Trial) -> Iterator[str]:
    """Why the weights come from this position, and which of them do not."""
    model, position, results = trial.model, trial.position, trial.results
    yield f"seed {trial.seed} {trial.candidate.source} {_seeding(trial.candidate, position)}"
    if model.seed not in (None, trial.seed):
        yield f"the config states seed {model.seed}, with which these weights were not drawn"
    if begins := trial.ranks[0].begins:
        yield f"pipeline stages with a freshly seeded generator begin at {', '.join(begins)}"
    explained = [result for result in results if result.explained]
    total = sum((result.tally for result in explained), Tally())
    equal = "all" if total.equal == total.values else f"{total.equal:,} of"
    yield f"it draws {len(explained)} of {count(len(results), 'tensor')}: {equal} {total.values:,} values are bit-equal"
    if total.equal < total.values:
        yield _fast_functions(total)
    shards = {shard.label: shard for shard in model.shards[0].values()}
    changed = [result for result in results if not result.explained]
    for result in changed[:FEW]:
        yield _changed_tensor(result, shards[result.name])
    if len(changed) > FEW:
        names = ", ".join(result.name for result in changed[FEW:])
        yield f"the same holds for {count(len(changed) - FEW, 'more tensor')}: {names}"
    if changed:
        yield from _exchanged(model, position, [result.name for result in changed[:FEW]])
        yield "so one initialisation did not draw all of these weights: some were changed afterwards"
    for name in model.unknown:
        yield f"{name} is not in the table of constructions, so it was not recomputed"
    if position.generator == CUDA and not position.threads_known:
        yield f"no tensor reveals the GPU: any that holds {position.resident:,} threads or more draws the same numbers"
    if trial.stored_state == DIFFERENT:
        yield from _state_differences(model.states, trial)


def _seeding(candidate: Candidate, position: StreamPosition) -> str:
    if candidate.rng == DEFAULT:
        return f"seeds the default {position.generator} generator, which use_cpu_initialization draws from"
    return f"seeds rank 0's {position.generator} generator with {position.seed}"


def _fast_functions(total: Tally) -> str:
    near = f" and {total.near:,} more by at most 2^-16 standard deviations" if total.near else ""  # streams.SLACK
    return (
        f"{count(total.one_apart, 'value')} differ by one unit in the last place{near}, as the fast sine and cosine of "
        "a GPU explain; a value changed by so little could not be distinguished"
    )


def _changed_tensor(result: TensorResult, shard: Shard) -> str:
    """How the first rank that differs does so."""
    rank = next(number for number, tally in enumerate(result.ranks) if result.different_in(tally))
    tally, several = result.ranks[rank], len(result.ranks) > 1
    of_rank = f" of rank {rank}'s" if several else " of"
    differ = f"{result.different_in(tally):,}{of_rank} {tally.values:,} values differ"
    if tally.wrong and tally.equal * 2 < tally.values:
        return f"{result.name} is not what was drawn there: {differ}"
    first = result.first_different(tally)
    assert first is not None
    row, column = divmod(first, shard.shape[-1])
    first_at = f"the first at row {row:,}, column {column:,}{' of the shard' if several else ''}"
    if tally.wrong == 0:
        return (
            f"{result.name}: {differ} by a unit in the last place or little more, {first_at}; torch's CPU kernels "
            "differ by this much between kinds of processors, and a changed value may too"
        )
    return f"{result.name} was changed after it was drawn: {differ}, {first_at}"


def _exchanged(model: InitialModel, position: StreamPosition, labels: Sequence[str]) -> Iterator[str]:
    """Which of the named tensors of rank 0 begin as if drawn where another of them belongs."""
    shards = {name: shard for name, shard in model.shards[0].items() if shard.label in labels}
    stream = position.stream(position.seed)
    starts = positions(model.shards[0], stream, position.position)
    for name, shard in shards.items():
        for other in shards:
            if other != name and stream.matches(shard, starts[other]):
                yield f"{shard.label} begins as what is drawn for {shards[other].label}"


def _state_differences(stored: Sequence[RandomState | None], trial: Trial) -> Iterator[str]:
    """How the stored states differ from those that the generators end in."""
    ends = trial.ends
    if len(stored) != len(ends):
        yield f"{count(len(stored), 'state')} are stored, and this order of construction leaves {len(ends)}"
        return
    for number, state in enumerate(stored):
        if state is not None and not state.same_place(ends[number]):
            yield (
                f"mp_rank_{number:02} stores {_describe_state(state)}, but the generator of these weights ends as "
                f"{_describe_state(ends[number])}"
            )


def _describe_state(state: RandomState) -> str:
    at = f"sha256 {sha256(state.raw).hexdigest()[:12]}" if state.offset is None else f"offset {state.offset:,}"
    return f"{state.generator} seeded with {state.seed} ({at})"


def stored_constructions(model: InitialModel) -> tuple[Constructions, ...]:
    """What the first stored state reveals; nothing for several pipeline stages, whose share of tensors is unknown."""
    if model.stored is None or model.stages != 1:
        return ()
    return constructions_before(_elements(model), model.stored)


def _elements(model: InitialModel) -> dict[str, int]:
    return {name: shard.elements for name, shard in model.shards[0].items()}


def failure_reasons(
    model: InitialModel,
    tried: Sequence[tuple[InitialModel, Candidate]],
    found: Sequence[Constructions],
    results: Sequence[TensorResult],
) -> Iterator[str]:
    """What was tried, with ranges, and what is known about why it failed."""
    yield from model.notes
    if model.iteration:
        yield f"the weights were trained for {count(model.iteration, 'iteration')}, so they are no longer those drawn"
    if model.stored is not None and model.stages == 1:
        yield _stored_state(model, model.stored, found)
    shards = {shard.label: shard for shard in model.shards[0].values()}
    for result in results[:1]:
        yield _changed_tensor(result, shards[result.name])
    if not results:
        names = ", ".join(list(shards)[:3])
        yield f"none of the {count(len(shards), 'tensor')} ({names}, ...) begins as any of the seeds draws it"
    for cut, candidate in tried:
        yield f"tried: {_tried(cut, candidate)}"


def _stored_state(model: InitialModel, state: RandomState, found: Sequence[Constructions]) -> str:
    if not found:
        most = MOST_CONSTRUCTIONS if state.generator == CUDA else constructions_within_reach(_elements(model))
        return f"the stored state, seeded with {state.seed}, is not that after 1 to {most} constructions of this model"
    times = " or ".join(
        count(one.times, "construction") + (f" on {', '.join(one.devices)}" if one.devices else "") for one in found
    )
    return f"the stored state is that of a generator seeded with {state.seed} after {times} of this model"


def _tried(model: InitialModel, candidate: Candidate) -> str:
    seeds = candidate.seeds
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds):,} seeds from {min(seeds)} to {max(seeds)}"
    ranks = f", {model.tensor_parallel} tensor-parallel ranks" if model.tensor_parallel > 1 else ""
    return f"{named} {candidate.source}, {candidate.generator} ({candidate.rng}), {_range(model, candidate)}{ranks}"


def _range(model: InitialModel, candidate: Candidate) -> str:
    few = len(candidate.seeds) <= FEW
    if candidate.generator == CPU:
        starts = sorted(likely_starts(model))
        if few:
            reach = cpu_reach(model)
            beyond = [f"{start:,}" for start in starts if start > reach]
            return f"positions 0 to {' and '.join([f'{reach:,}', *beyond])}"
        return f"positions {starts[0]:,} and {starts[1]:,}"
    if few:
        return f"offsets 0 to {GPU_REACH:,}"
    return f"offsets 0 to {GPU_NEAR:,} and those after one or two constructions on known GPUs"
