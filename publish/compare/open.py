"""From a location to a side: raw or Hugging Face, told apart by the files; on a Hub nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterable

from publish.compare.hf_side import HfSide
from publish.compare.neox_side import NeoxSide
from publish.compare.side import Side
from publish.errors import SourceError
from publish.schedule import step_of
from publish.source.files import CheckpointFiles, LocalFiles
from publish.source.location import Location

_RAW, _HF = ".pt", (".safetensors", "pytorch_model.bin")


def open_side(location: Location, step: int | None = None) -> Side:
    """The model at a location; ``step`` picks one where the location is a whole run.

    Raises:
        SourceError: nothing there, or a run and no step. HubError: no access, no connection.
        PublishError: as the formats do.
    """
    files, name = _folder(location, step) if location.folder is not None else _revision(location, step)
    try:
        return side_of(files, step_of(name))
    except BaseException:
        files.close()
        raise


def side_of(files: CheckpointFiles, step: int | None) -> Side:
    """The model that ``files`` hold; ``step`` is what the location's name claims."""
    if _holds(files.sizes, (_RAW,)):
        return NeoxSide(files, step)
    if _holds(files.sizes, _HF):
        return HfSide(files, step)
    raise SourceError(
        "no checkpoint here: neither GPT-NeoX's *.pt files nor safetensors", files.where, "name a checkpoint"
    )


def _holds(names: Iterable[str], endings: tuple[str, ...]) -> bool:
    """Whether a file right in the folder has one of the endings."""
    return any(name.endswith(endings) and "/" not in name for name in names)


def _folder(location: Location, step: int | None) -> tuple[CheckpointFiles, str]:
    folder = location.folder
    assert folder is not None
    if _holds((path.name for path in folder.iterdir()), (_RAW, *_HF)):
        return LocalFiles(folder), folder.resolve().name
    found = {step_of(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    if step is None or step not in found:
        raise _which(len(found.keys() - {None}), step, str(location))
    return LocalFiles(found[step]), found[step].name


def _revision(location: Location, step: int | None) -> tuple[CheckpointFiles, str]:
    from publish.source.remote import HubReader

    assert location.repo is not None
    reader = HubReader(location.repo)
    if location.revision is None and step is not None:
        branches = {step_of(name): (name, commit) for name, commit in reader.branches().items()}
        if step not in branches:
            raise _which(len(branches.keys() - {None}), step, location.repo)
        name, commit = branches[step]
    else:
        name = location.revision or "main"
        commit = reader.resolve(name)
    return reader.stream(commit, f"{location.repo}@{name}"), name


def _which(count: int, step: int | None, where: str) -> SourceError:
    if step is None:
        return SourceError(
            f"no checkpoint of its own, and {count} steps, none named", where, "add --step N or @revision"
        )
    return SourceError(f"there is no step {step} among {count} steps", where, "name one that is there")
