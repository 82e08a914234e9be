"""The checkpoint at a location, raw GPT-NeoX or Hugging Face, told apart by its files."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from publish.errors import CheckpointError, SourceError
from publish.hf.checkpoint import SINGLE_FILES, HfCheckpoint, has_weights
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.layout import is_checkpoint as is_raw
from publish.schedule import step_of
from publish.sources.files import CheckpointFiles, LocalFiles
from publish.sources.remote import HubReader
from publish.sources.runs import CheckpointSource, FolderRun, HubRun, Location, RunSource
from publish.text import count, some

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
    location: Location, step: int | None = None, *, stream: bool = False
) -> tuple[CheckpointSource, CheckpointFiles]:
    """The checkpoint at ``location``: the folder or revision itself (a repo's ``main``), or a step of the run there.

    Args:
        location: A checkpoint or a run.
        step: The step of a run; ignored if the location is a checkpoint.
        stream: Each weight is read once: keep none of a Hub's files on disk.

    Raises:
        SourceError: a run without a step, or without this one. CheckpointError: no checkpoint.
        HubError: the Hub refuses or cannot be reached.
    """
    if location.folder is not None:
        return _in_folder(location.folder, step)
    return _on_hub(location, step, stream=stream)


def _in_folder(folder: Path, step: int | None) -> tuple[CheckpointSource, CheckpointFiles]:
    names = [path.name for path in folder.iterdir()]
    if is_checkpoint(names):
        name = folder.resolve().name
        return CheckpointSource(str(folder), name, _claimed_step(name)), LocalFiles(folder)
    if not any(step_of(name) is not None for name in names):
        raise _not_found(names, str(folder))
    run = FolderRun(folder)
    source = _step_of_run(run, step)
    return source, run.open(source)


def _on_hub(location: Location, step: int | None, *, stream: bool) -> tuple[CheckpointSource, CheckpointFiles]:
    assert location.repo is not None
    reader = HubReader(location.repo)
    if location.revision is None and step is not None:
        source = _step_of_run(HubRun(location.repo), step)
    else:
        name = location.revision or "main"
        source = CheckpointSource(location.repo, name, _claimed_step(name), reader.resolve(name))
    assert source.commit is not None
    read = reader.stream if stream else reader.files
    files = read(source.commit, f"{location.repo}@{source.name}")
    if location.revision is None and step is None and not is_checkpoint(files.sizes):
        files.close()
        if any(step_of(branch) is not None for branch in reader.branches()):
            _step_of_run(HubRun(location.repo), None)
        raise _not_found(files.sizes, f"{location.repo}@main")
    return source, files


def _step_of_run(run: RunSource, step: int | None) -> CheckpointSource:
    if step is None:
        what = f"this is a run of {count(len(run.steps), 'checkpoint')}, and no step is named"
        raise SourceError(what, run.where, "add --step N")
    if step not in run.steps:
        shown = some(run.steps, 6)
        raise SourceError(f"step {step:,} is not in this run", run.where, f"its steps are {shown}")
    return run.steps[step]


def _claimed_step(name: str) -> int:
    """The step that a name states; -1 if it states none."""
    step = step_of(name)
    return -1 if step is None else step
