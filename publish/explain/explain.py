"""From a subject to an answer: seeds in order, cheap tests first, then every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from publish.explain import locate_cpu, locate_cuda, reasons
from publish.explain.answer import ABSENT, DIFFERENT, EQUAL, NOT_REPRODUCED, PARTLY, REPRODUCED, Answer
from publish.explain.candidate import Candidate, candidates
from publish.explain.matching import Tally
from publish.explain.place import Place
from publish.explain.subject import Subject
from publish.explain.trial import Trial
from publish.neox.randomstate import CPU, CUDA

_BATCH = 1 << 14
_LOCATE = {CPU: locate_cpu.locate, CUDA: locate_cuda.locate}
_SCAN = {CPU: locate_cpu.scan, CUDA: locate_cuda.scan}


def explain(subjects: Sequence[Subject], step: int | None, asked: Sequence[int] | None = None) -> Answer:
    """The random state that made the weights of one checkpoint.

    ``subjects`` are the ways in which it may have been cut into ranks, one for a raw checkpoint. ``asked``: run
    seeds that alone are tried; by default those of the stored states, then the config's.
    """
    tried: list[tuple[Subject, Candidate]] = []
    best: Trial | None = None
    for trial in _trials(subjects, asked, tried):
        if best is None or trial.merit > best.merit:
            best = trial
        if trial.complete:
            break
    if best is None or not any(result.alike for result in best.results):
        return _unexplained(subjects[0], step, tried, best)
    return _explained(best, step)


def _trials(
    subjects: Sequence[Subject], asked: Sequence[int] | None, tried: list[tuple[Subject, Candidate]]
) -> Iterator[Trial]:
    found: set[int] = set()  # run seeds with which some tensor begins: other cuts need no wider search
    for subject in subjects:
        for candidate in candidates(subject, sorted(found) or asked):
            tried.append((subject, candidate))
            for place in _places(subject, candidate):
                trial = Trial.full(subject, candidate, place)
                found.add(trial.seed)
                yield trial


def _places(subject: Subject, candidate: Candidate) -> Iterator[Place]:
    seeds = candidate.seeds
    if len(seeds) <= reasons.FEW:
        for seed in seeds:
            yield from _LOCATE[candidate.generator](subject, candidate.generator_seed(seed))
        return
    for start in range(0, len(seeds), _BATCH):
        batch = [candidate.generator_seed(seed) for seed in seeds[start : start + _BATCH]]
        yield from _SCAN[candidate.generator](subject, np.array(batch, np.uint64))


def _explained(trial: Trial, step: int | None) -> Answer:
    subject, results = trial.subject, trial.results
    complete = trial.complete and not subject.unknown
    return Answer(
        where=subject.where,
        step=step,
        outcome=REPRODUCED if complete else PARTLY,
        origin=trial.origin,
        results=results,
        tensors=len(results) + len(subject.unknown),
        values=subject.values,
        stored_state=trial.stored_state,
        reasons=trial.reasons,
        tensor_parallel=subject.tensor_parallel,
        total=sum((result.tally for result in results), Tally()),
    )


def _unexplained(
    subject: Subject, step: int | None, tried: Sequence[tuple[Subject, Candidate]], best: Trial | None
) -> Answer:
    constructed = reasons.constructions(subject)
    stored = ABSENT if not any(subject.states) else EQUAL if constructed else DIFFERENT
    return Answer(
        where=subject.where,
        step=step,
        outcome=NOT_REPRODUCED,
        origin=None,
        results=(),
        tensors=len(subject.shards[0]) + len(subject.unknown),
        values=subject.values,
        stored_state=stored,
        reasons=tuple(reasons.of_failure(subject, tried, constructed, best.results if best else ())),
        tensor_parallel=subject.tensor_parallel,
    )
