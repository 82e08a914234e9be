"""A location as the command line takes it: a folder, or a Hub repo with an optional revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from publish.errors import SourceError

_REPO = re.compile(r"(?:hf://)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([^\s@]+))?")


@dataclass(frozen=True, slots=True)
class Location:
    """Either ``folder`` or ``repo`` (with ``revision`` where one was named)."""

    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return f"{self.repo}@{self.revision}" if self.revision else str(self.repo)


def parse_location(text: str, base: Path | None = None) -> Location:
    """``text`` as a folder (an existing one wins; relative to ``base``) or as ``owner/name[@revision]``.

    Raises:
        SourceError: neither.
    """
    if not text.startswith("hf://"):
        folder = (base or Path()) / Path(text).expanduser()
        if folder.is_dir():
            return Location(folder=folder)
        if folder.is_file():
            raise SourceError("this is a file, not a folder", text, "name the checkpoint's folder")
    found = _REPO.fullmatch(text)
    if found is None:
        raise SourceError(
            "neither an existing folder nor a repository",
            text,
            "name a folder, or owner/name with an optional @revision",
        )
    return Location(repo=found[1], revision=found[2])
