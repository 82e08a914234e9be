"""Which random state made a checkpoint's initial weights: seeds in order, cheap tests first, then every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from publish.cards.facts import Explanation, explanation
from publish.checkpoints import find_checkpoint, open_checkpoint
from publish.errors import ConfigError
from publish.explain.answer import NOT_REPRODUCED, PARTLY, REPRODUCED, Answer
from publish.explain.models import InitialModel, initial_models
from publish.explain.reasons import FEW, failure_reasons, stored_constructions, trial_reasons
from publish.explain.replay import ABSENT, DIFFERENT, EQUAL, Trial
from publish.explain.search import locate, scan
from publish.explain.stored import Candidate, candidates
from publish.explain.streams import StreamPosition, Tally
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.runs import CheckpointRef, Location

LARGEST = 500_000_000  # parameters that a release recomputes; drawing more takes minutes
_BATCH = 1 << 14  # seeds at a time


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
    return Answer(
        where=model.where,
        step=step,
        outcome=REPRODUCED if best.complete and not model.unknown else PARTLY,
        rng_state=best.rng_state,
        results=results,
        tensors=len(results) + len(model.unknown),
        values=model.values,
        stored_state=best.stored_state,
        reasons=tuple(trial_reasons(best)),
        tensor_parallel=model.tensor_parallel,
        total=sum((result.tally for result in results), Tally()),
    )


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
    return Answer(
        where=model.where,
        step=step,
        outcome=NOT_REPRODUCED,
        rng_state=None,
        results=(),
        tensors=len(model.shards[0]) + len(model.unknown),
        values=model.values,
        stored_state=ABSENT if not any(model.states) else EQUAL if constructions else DIFFERENT,
        reasons=tuple(failure_reasons(model, tried, constructions, best.results if best else ())),
        tensor_parallel=model.tensor_parallel,
    )


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


def explanation_of(checkpoint: RawCheckpoint, source: CheckpointRef) -> Explanation | None:
    """What a card states of a step 0; None where the weights are not reproduced, by a method that draws otherwise too.

    Models beyond :data:`LARGEST` parameters are left to ``publish explain``: drawing them again takes minutes.

    Raises:
        CheckpointError: a broken file.
    """
    if source.step != 0 or sum(t.elements for rank in checkpoint.ranks for t in rank.values()) > LARGEST:
        return None
    try:
        return explanation(explain_checkpoint(checkpoint, source.step))
    except ConfigError:  # an init method that is not recomputed
        return None
