"""The checkpoint at a location, raw GPT-NeoX or Hugging Face, told apart by its files."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from publish.errors import CheckpointError, SourceError
from publish.hf.checkpoint import SINGLE_FILES, HfCheckpoint, has_weights
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.checkpoint import is_checkpoint as is_raw
from publish.schedule import step_of
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.remote import HubRepo
from publish.sources.runs import CheckpointRef, Location, TrainingRun, open_run
from publish.text import count, some

if TYPE_CHECKING:
    from publish.hub.client import Client

_EXPECTED = f"{', '.join(SINGLE_FILES)} or mp_rank_*_model_states.pt"
_NOT_READ = {
    "a GGUF model": re.compile(r".+\.gguf"),
    "a TensorFlow model": re.compile(r"tf_model.*\.h5|model\.ckpt.*"),
    "a Flax model": re.compile(r"flax_model.*\.msgpack"),
    "an adapter": re.compile(r"adapter_(config\.json|model\..+)"),
}


def is_checkpoint(names: Collection[str]) -> bool:
    """Whether the files of these names, relative to a folder, are a checkpoint that `open_checkpoint` opens."""
    return is_raw(set(names)) or has_weights(names)


def open_checkpoint(files: CheckpointFiles) -> RawCheckpoint | HfCheckpoint:
    """The checkpoint that ``files`` are; raw if they are both.

    Raises:
        CheckpointError: no checkpoint, files missing, broken or hostile.
    """
    if is_raw(files.sizes):
        return RawCheckpoint.open(files, weights=False)
    if has_weights(files.sizes):
        return HfCheckpoint.open(files)
    raise _not_found(files.sizes, files.where)


def open_raw_checkpoint(files: CheckpointFiles) -> RawCheckpoint:
    """The raw checkpoint that ``files`` are, for commands that read no other format.

    Raises:
        CheckpointError: as `open_checkpoint`, or a Hugging Face checkpoint.
    """
    checkpoint = open_checkpoint(files)
    if isinstance(checkpoint, HfCheckpoint):
        what = "this is a Hugging Face checkpoint: expected mp_rank_*_model_states.pt"
        raise CheckpointError(what, files.where, "name a raw GPT-NeoX checkpoint")
    return checkpoint


def _not_found(names: Collection[str], where: str) -> CheckpointError:
    for kind, pattern in _NOT_READ.items():
        if found := sorted(name for name in names if pattern.fullmatch(name)):
            what = f"{kind} ({found[0]}) cannot be read: expected {_EXPECTED}"
            return CheckpointError(what, where, "name a checkpoint in one of these formats")
    what = f"no checkpoint found in this folder: expected {_EXPECTED}"
    return CheckpointError(what, where, "name the folder or revision of a checkpoint")


def find_checkpoint(
    location: Location, step: int | None = None, client: Client | None = None, *, stream: bool = False
) -> tuple[CheckpointRef, CheckpointFiles]:
    """The checkpoint at ``location``: the folder or revision itself (a repo's ``main``), or a step of the run there.

    Args:
        location: A checkpoint or a run.
        step: The step of a run; ignored if the location is a checkpoint.
        client: Reads what is on a Hub.
        stream: Every weight is read once, so no file of a Hub is kept on disk.

    Raises:
        SourceError: a run without a step, or without this one. CheckpointError: no checkpoint.
        HubError: the Hub refuses or cannot be reached.
    """
    if location.folder is not None:
        folder = location.folder
        names = [path.name for path in folder.iterdir()]
        if is_checkpoint(names):
            name = folder.resolve().name
            return CheckpointRef(str(folder), name, step_of(name)), LocalFiles(folder)
        if not any(step_of(name) is not None for name in names):
            raise _not_found(names, str(folder))
        run = open_run(location)
        ref = _select(run, step)
        return ref, run.open(ref)
    assert location.repo is not None
    repo = HubRepo(location.repo, client)
    if location.revision is None and step is not None:
        ref = _select(open_run(location, client), step)
    else:
        name = location.revision or "main"
        ref = CheckpointRef(location.repo, name, step_of(name), repo.resolve(name))
    assert ref.commit is not None
    files = repo.files(ref.commit, f"{location.repo}@{ref.name}", stream=stream)
    if location.revision is None and step is None and not is_checkpoint(files.sizes):
        files.close()
        steps = [branch for branch in repo.branches() if step_of(branch) is not None]
        raise _no_step(len(steps), location.repo) if steps else _not_found(files.sizes, files.where)
    return ref, files


def _no_step(steps: int, where: str) -> SourceError:
    return SourceError(f"this is a run of {count(steps, 'checkpoint')}, and no step is named", where, "add --step N")


def _select(run: TrainingRun, step: int | None) -> CheckpointRef:
    if step is None:
        raise _no_step(len(run.steps), run.where)
    if step not in run.steps:
        raise SourceError(f"step {step:,} is not in this run", run.where, f"its steps are {some(run.steps, 6)}")
    return run.steps[step]
