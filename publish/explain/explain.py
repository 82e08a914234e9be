"""From a subject to an answer: seeds in order, cheap tests first, then every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from publish.cards.facts import Explanation, explanation
from publish.errors import ConfigError
from publish.explain import reasons, search_cpu, search_cuda
from publish.explain.answer import ABSENT, DIFFERENT, EQUAL, NOT_REPRODUCED, PARTLY, REPRODUCED, Answer
from publish.explain.matching import Tally
from publish.explain.models import hf_subjects, raw_subjects
from publish.explain.replay import Trial
from publish.explain.stored import Candidate, candidates, differences
from publish.explain.streams import Place
from publish.explain.subject import Subject
from publish.formats.safetensors import has_tensor_files
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.layout import is_checkpoint
from publish.neox.state import CPU, CUDA
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.runs import CheckpointRef, Location, open_ref

_BATCH = 1 << 14
_LOCATE = {CPU: search_cpu.locate, CUDA: search_cuda.locate}
_SCAN = {CPU: search_cpu.scan, CUDA: search_cuda.scan}


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


# One checkpoint, raw or in Hugging Face format, wherever it lies, explained.


LARGEST = 500_000_000
_MAIN = "main"


def open_any(location: Location, step: int | None) -> tuple[CheckpointRef, CheckpointFiles]:
    """One checkpoint of either format; a folder or a ``main`` that holds weights is one of its own.

    Raises:
        SourceError: as `open_ref`.
    """
    folder = location.folder
    if step is None and folder is not None:
        names = {path.name: 0 for path in folder.iterdir()}
        if has_tensor_files(names) and not is_checkpoint(names):
            return CheckpointRef(str(folder), folder.name, None), LocalFiles(folder)
    if step is None and location.repo is not None and location.revision is None:
        source, files = open_ref(Location(repo=location.repo, revision=_MAIN), None)
        if has_tensor_files(files.sizes) or is_checkpoint(files.sizes):
            return source, files
        files.close()
    return open_ref(location, step)


def explained_apart(left: Location, right: Location, step: int | None) -> tuple[str, ...]:
    """How the initial weights of two models come to be what they are: each recomputed, and how their states differ.

    Raises:
        PublishError: as `open_any` and `explain_one` do.
    """
    answers = []
    for location in (left, right):
        source, files = open_any(location, step)
        try:
            answers.append(explain_one(source, files, None))
        finally:
            files.close()
    told = [
        f"{answer.where} is {answer.outcome} from seed {answer.origin.seed}: {answer.bit_equal:,} of "
        f"{answer.values:,} values bit for bit"
        if answer.origin
        else f"{answer.where} is {answer.outcome}"
        for answer in answers
    ]
    first, second = (answer.origin for answer in answers)
    return (*told, *(differences(first, second) if first and second else ()))


def explanation_of(checkpoint: RawCheckpoint, source: CheckpointRef) -> Explanation | None:
    """What a card states of a step 0; None where the weights are not reproduced, by a method that draws otherwise too.

    Models beyond :data:`LARGEST` parameters are left to ``publish explain``: drawing them again takes minutes.

    Raises:
        CheckpointError: a broken file.
    """
    if source.step != 0 or sum(t.elements for rank in checkpoint.ranks for t in rank.values()) > LARGEST:
        return None
    try:
        return explanation(explain_one(source, checkpoint.files, None))
    except ConfigError:  # an init method that is not recomputed
        return None


def explain_one(source: CheckpointRef, files: CheckpointFiles, seeds: Sequence[int] | None) -> Answer:
    """The random state that made the weights; ``seeds`` alone are tried where given.

    Raises:
        PublishError: no checkpoint, a broken one, or init methods that are not recomputed.
    """
    if has_tensor_files(files.sizes) and not is_checkpoint(files.sizes):
        return explain(list(hf_subjects(files)), source.step, seeds)
    subjects = list(raw_subjects(files))
    return explain(subjects, subjects[0].iteration if source.step is None else source.step, seeds)
