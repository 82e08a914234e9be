"""From a subject to an answer: seeds in order, cheap tests first, then every value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from publish.explain import locate_cpu, locate_cuda, reasons
from publish.explain.answer import (
    ABSENT,
    DIFFERENT,
    EQUAL,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Answer,
    Origin,
    TensorResult,
)
from publish.explain.candidate import Candidate, candidates, rank_seed
from publish.explain.devices import with_at_least, with_threads
from publish.explain.matching import Tally
from publish.explain.place import Place
from publish.explain.preceding import describe
from publish.explain.subject import Subject
from publish.explain.walk import Walked, walk
from publish.neox.randomstate import CPU, CUDA

_BATCH = 1 << 14
_LOCATE = {CPU: locate_cpu.locate, CUDA: locate_cuda.locate}
_SCAN = {CPU: locate_cpu.scan, CUDA: locate_cuda.scan}


@dataclass(frozen=True, slots=True)
class Trial:
    """One place whose every value was compared, and how much of the subject it explains."""

    subject: Subject
    candidate: Candidate
    place: Place
    ranks: tuple[Walked, ...]

    @property
    def results(self) -> tuple[TensorResult, ...]:
        found = []
        for name, shard in self.subject.shards[0].items():
            tally = sum((rank.tallies[name] for rank in self.ranks), Tally())
            found.append(TensorResult(shard.shown, tally, self.place.generator == CPU))
        return tuple(found)

    @property
    def complete(self) -> bool:
        return all(result.explained for result in self.results)

    @property
    def merit(self) -> tuple[int, int, bool]:
        """How good an explanation it is: tensors, then bits, then whether it names the GPU."""
        results = self.results
        return (
            sum(result.explained for result in results),
            sum(result.tally.equal for result in results),
            (self.place.told),
        )


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
    if best is None or not any(result.explained for result in best.results):
        return _unexplained(subjects[0], step, tried, best)
    return _explained(best, step)


def _trials(
    subjects: Sequence[Subject], asked: Sequence[int] | None, tried: list[tuple[Subject, Candidate]]
) -> Iterator[Trial]:
    for subject in subjects:
        for candidate in candidates(subject, asked):
            tried.append((subject, candidate))
            for place in _places(subject, candidate):
                yield _full(subject, candidate, place)


def _places(subject: Subject, candidate: Candidate) -> Iterator[Place]:
    seeds = candidate.seeds
    if len(seeds) <= reasons.FEW:
        for seed in seeds:
            yield from _LOCATE[candidate.generator](subject, candidate.generator_seed(seed))
        return
    for start in range(0, len(seeds), _BATCH):
        batch = [candidate.generator_seed(seed) for seed in seeds[start : start + _BATCH]]
        yield from _SCAN[candidate.generator](subject, np.array(batch, np.uint64))


def _full(subject: Subject, candidate: Candidate, place: Place) -> Trial:
    ranks = tuple(
        walk(subject, rank, place.stream(rank_seed(subject, place.seed, rank)), place.position, place.stream)
        for rank in range(subject.tensor_parallel)
    )
    return Trial(subject, candidate, place, ranks)


def _explained(trial: Trial, step: int | None) -> Answer:
    subject, results = trial.subject, trial.results
    complete = trial.complete and not subject.unknown
    return Answer(
        where=subject.where,
        step=step,
        outcome=REPRODUCED if complete else PARTLY,
        origin=_origin(trial),
        results=results,
        tensors=len(results) + len(subject.unknown),
        values=subject.values,
        stored_state=_stored(trial),
        reasons=tuple(reasons.of_trial(trial.subject, trial.candidate, trial.place, results)),
        tensor_parallel=subject.tensor_parallel,
        total=sum((result.tally for result in results), Tally()),
    )


def _origin(trial: Trial) -> Origin:
    place, subject = trial.place, trial.subject
    cpu = place.generator == CPU
    devices: Iterable[str] = with_threads(place.resident) if place.told else with_at_least(place.resident)
    return Origin(
        generator=place.generator,
        seed=place.seed - trial.candidate.generator_seed(0),
        seeds=tuple(rank_seed(subject, place.seed, rank) for rank in range(subject.tensor_parallel)),
        position=place.position,
        preceding=describe(subject, place),
        threads=None if cpu or not place.told else place.resident,
        devices=() if cpu else tuple(devices),
    )


def _stored(trial: Trial) -> str:
    """Whether the generators' states after the last tensor are those that the checkpoint holds."""
    states = trial.subject.states
    if not any(states):
        return ABSENT
    ranks = trial.subject.tensor_parallel
    ends = {
        stage * ranks + rank: end for rank, walked in enumerate(trial.ranks) for stage, end in enumerate(walked.ends)
    }
    same = len(ends) == len(states) and all(
        stored is None or stored.same_place(ends[number]) for number, stored in enumerate(states)
    )
    return EQUAL if same else DIFFERENT


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
