"""Which random state made a checkpoint's initial weights: seeds in order, cheap tests first, then every value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from publish.cards.sentences import drawn_before
from publish.checkpoints import find_checkpoint, open_checkpoint
from publish.errors import ConfigError
from publish.explain.models import InitialModel, Shard, initial_models
from publish.explain.replay import ABSENT, DIFFERENT, EQUAL, TensorResult, Trial
from publish.explain.search import GPU_NEAR, GPU_REACH, cpu_reach, likely_starts, locate, scan
from publish.explain.stored import (
    DEFAULT,
    MOST_CONSTRUCTIONS,
    Candidate,
    Constructions,
    candidates,
    constructions_before,
    constructions_within_reach,
)
from publish.explain.streams import StreamPosition, Tally, positions
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.state import CPU, CUDA, RandomState
from publish.records.manifest import NOT_REPRODUCED, PARTLY, REPRODUCED, Explanation, RngState
from publish.sources.runs import CheckpointRef, Location
from publish.text import count

LARGEST = 500_000_000  # parameters that a release recomputes; drawing more takes minutes
FEW = 8  # tensors that are named one by one, and seeds whose whole reach is searched
_BATCH = 1 << 14  # seeds at a time


@dataclass(frozen=True)
class Answer:
    """What ``publish explain`` says. ``results`` are by tensor, empty if nothing was reproduced."""

    where: str
    step: int | None
    explanation: Explanation
    results: tuple[TensorResult, ...]
    reasons: tuple[str, ...]
    tensor_parallel: int = 1

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish explain``; ``details`` has the tensors by name."""
        found, state = self.explanation, self.explanation.rng_state
        return {
            "checkpoint": self.where,
            "step": self.step,
            "outcome": found.outcome,
            "seed": state and state.seed,
            "generator": state and state.generator,
            "generator_seeds": list(state.seeds) if state else [],
            "preceding": state and _preceding(state, found),
            "threads": state and state.threads,
            "devices": list(state.devices) if state else [],
            "tensor_parallel": self.tensor_parallel,
            "tensors": found.tensors,
            "values": found.values,
            "bit_equal": found.bit_equal,
            "within_one_ulp": found.within_one_ulp,
            "stored_state": found.stored_state,
            "reasons": list(self.reasons),
            "details": [_detail(result) for result in self.results],
        }


def _preceding(state: RngState, explanation: Explanation) -> dict[str, Any] | None:
    before = state.preceding
    if before is None:
        return None
    unit = "draws" if state.generator == CPU else "offset"
    amounts = {unit: before.position, "constructions": before.constructions, "tensors": list(before.tensors)}
    return {**amounts, "detail": drawn_before(explanation)}


def _detail(result: TensorResult) -> Mapping[str, Any]:
    tally = result.tally
    return {
        "name": result.name,
        "explained": result.explained,
        "values": tally.values,
        "bit_equal": tally.equal,
        "within_one_ulp": tally.equal + tally.one_apart,
        "different": result.different,
    }


def explain(models: Sequence[InitialModel], step: int | None, asked: Sequence[int] | None = None) -> Answer:
    """The random state that made the weights of one checkpoint.

    Args:
        models: The ways in which GPT-NeoX may have drawn it; one for a raw checkpoint with a config.
        step: The checkpoint's step, for the answer.
        asked: Run seeds to try instead of those of the stored states and the config.
    """
    tried: list[tuple[InitialModel, Candidate]] = []
    best: Trial | None = None
    for trial in _trials(models, asked, tried):
        if best is None or trial.score > best.score:
            best = trial
        if trial.complete:
            break
    if best is None or not any(result.nearly_explained for result in best.results):
        return _not_reproduced(models[0], step, tried, best)
    model, results = best.model, best.results
    total = sum((result.tally for result in results), Tally())
    explanation = Explanation(
        outcome=REPRODUCED if best.complete and not model.unknown else PARTLY,
        rng_state=best.rng_state,
        layout=model.layout,
        tensors=len(results) + len(model.unknown),
        values=model.values,
        bit_equal=total.equal,
        within_one_ulp=total.equal + total.one_apart,
        stored_state=best.stored_state,
    )
    return Answer(model.where, step, explanation, results, tuple(trial_reasons(best)), model.tensor_parallel)


def _trials(
    models: Sequence[InitialModel], asked: Sequence[int] | None, tried: list[tuple[InitialModel, Candidate]]
) -> Iterator[Trial]:
    found: set[int] = set()  # run seeds that draw some tensor: the other cuts are tried with these alone
    for model in models:
        for candidate in candidates(model, sorted(found) or asked):
            tried.append((model, candidate))
            for position in _positions(model, candidate):
                trial = Trial.run(model, candidate, position)
                found.add(trial.seed)
                yield trial


def _positions(model: InitialModel, candidate: Candidate) -> Iterator[StreamPosition]:
    seeds = candidate.seeds
    if len(seeds) <= FEW:
        for seed in seeds:
            yield from locate(model, candidate.generator, candidate.generator_seed(seed))
        return
    for start in range(0, len(seeds), _BATCH):
        batch = [candidate.generator_seed(seed) for seed in seeds[start : start + _BATCH]]
        yield from scan(model, candidate.generator, np.array(batch, np.uint64))


def _not_reproduced(
    model: InitialModel, step: int | None, tried: Sequence[tuple[InitialModel, Candidate]], best: Trial | None
) -> Answer:
    constructions = stored_constructions(model)
    explanation = Explanation(
        outcome=NOT_REPRODUCED,
        rng_state=None,
        layout=model.layout,
        tensors=len(model.shards[0]) + len(model.unknown),
        values=model.values,
        bit_equal=0,
        within_one_ulp=0,
        stored_state=ABSENT if not any(model.states) else EQUAL if constructions else DIFFERENT,
    )
    reasons = failure_reasons(model, tried, constructions, best.results if best else ())
    return Answer(model.where, step, explanation, (), tuple(reasons), model.tensor_parallel)


def explain_location(location: Location, step: int | None, seeds: Sequence[int] | None = None) -> Answer:
    """The random state that made the checkpoint at ``location``, or that at ``step`` of the run there.

    Raises:
        PublishError: as `find_checkpoint` and `explain_checkpoint`.
    """
    ref, files = find_checkpoint(location, step)
    try:
        return explain_checkpoint(open_checkpoint(files), ref.step, seeds)
    finally:
        files.close()


def explain_checkpoint(
    checkpoint: RawCheckpoint | HfCheckpoint, step: int | None, seeds: Sequence[int] | None = None
) -> Answer:
    """The random state that made a checkpoint's weights; only ``seeds`` are tried, if given.

    Raises:
        PublishError: a damaged checkpoint, or an init method that is not recomputed.
    """
    models = list(initial_models(checkpoint))
    return explain(models, models[0].iteration if step is None else step, seeds)


def explanation_of(checkpoint: RawCheckpoint, ref: CheckpointRef) -> Explanation | None:
    """The random state that made a step 0; None for other steps, or if the init method is not recomputed.

    Models of more than :data:`LARGEST` parameters are left to ``publish explain``.

    Raises:
        CheckpointError: a damaged file.
    """
    if ref.step != 0 or sum(tensor.elements for rank in checkpoint.ranks for tensor in rank.values()) > LARGEST:
        return None
    try:
        return explain_checkpoint(checkpoint, ref.step).explanation
    except ConfigError:  # an init method that is not recomputed
        return None


# ---- reasons in sentences


def trial_reasons(trial: Trial) -> Iterator[str]:
    """Why the weights come from this position, and which of them do not."""
    model, position, results = trial.model, trial.position, trial.results
    yield f"seed {trial.seed} ({trial.candidate.source}) {_seeding(trial.candidate, position)}"
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
    return f"{named} ({candidate.source}), {candidate.generator} ({candidate.rng}), {_range(model, candidate)}{ranks}"


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
