"""The release that the arguments mean: a file, or a source and a target."""

from __future__ import annotations

from pathlib import Path

from publish.errors import ReleaseError
from publish.release import Release, read_release
from publish.run.init import propose


def given_release(release_or_source: str, target: str | None) -> Release:
    """The release file at the path, or (with ``target``) the release that fits the source.

    Raises:
        ReleaseError: a file and a target, or neither.
    """
    if target is not None:
        return propose(release_or_source, target)
    path = Path(release_or_source)
    if path.is_dir() or not (path.suffix in (".yaml", ".yml") or path.exists()):
        raise ReleaseError(
            "this is a source without a target", release_or_source, "name a release file, or SOURCE and TARGET"
        )
    return read_release(path)
