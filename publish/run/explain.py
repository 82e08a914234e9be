"""One checkpoint, raw or in Hugging Face format, wherever it lies, explained."""

from __future__ import annotations

from collections.abc import Sequence

from publish.explain.answer import Answer
from publish.explain.explain import explain
from publish.explain.hfformat import hf_subjects
from publish.explain.raw import raw_subjects
from publish.explain.tensorfile import has_tensor_files
from publish.neox.layout import is_checkpoint
from publish.source.checkpoints import CheckpointSource, open_checkpoint
from publish.source.files import CheckpointFiles, LocalFiles
from publish.source.location import Location

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
