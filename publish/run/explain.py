"""One checkpoint, raw or in Hugging Face format, wherever it lies, explained."""

from __future__ import annotations

from collections.abc import Sequence

from publish.card.explanation import Explanation, explanation
from publish.errors import ConfigError
from publish.explain.answer import Answer
from publish.explain.difference import differences
from publish.explain.explain import explain
from publish.explain.hfformat import hf_subjects
from publish.explain.raw import raw_subjects
from publish.explain.tensorfile import has_tensor_files
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.layout import is_checkpoint
from publish.source.checkpoints import CheckpointSource, open_checkpoint
from publish.source.files import CheckpointFiles, LocalFiles
from publish.source.location import Location

LARGEST = 500_000_000
_MAIN = "main"


def open_any(location: Location, step: int | None) -> tuple[CheckpointSource, CheckpointFiles]:
    """One checkpoint of either format; a folder or a ``main`` that holds weights is one of its own.

    Raises:
        SourceError: as `open_checkpoint`.
    """
    folder = location.folder
    if step is None and folder is not None:
        names = {path.name: 0 for path in folder.iterdir()}
        if has_tensor_files(names) and not is_checkpoint(names):
            return CheckpointSource(str(folder), folder.name, -1), LocalFiles(folder)
    if step is None and location.repo is not None and location.revision is None:
        source, files = open_checkpoint(Location(repo=location.repo, revision=_MAIN), None)
        if has_tensor_files(files.sizes) or is_checkpoint(files.sizes):
            return source, files
        files.close()
    return open_checkpoint(location, step)


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


def explanation_of(checkpoint: RawCheckpoint, source: CheckpointSource) -> Explanation | None:
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


def explain_one(source: CheckpointSource, files: CheckpointFiles, seeds: Sequence[int] | None) -> Answer:
    """The random state that made the weights; ``seeds`` alone are tried where given.

    Raises:
        PublishError: no checkpoint, a broken one, or init methods that are not recomputed.
    """
    step = source.step if source.step >= 0 else None
    if has_tensor_files(files.sizes) and not is_checkpoint(files.sizes):
        return explain(list(hf_subjects(files)), step, seeds)
    subjects = list(raw_subjects(files))
    return explain(subjects, subjects[0].iteration if step is None else step, seeds)
