"""What a commit changes in a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pygit2

from publish.rehearsal.refusals import entry_not_found

_FILE = 0o100644


@dataclass(frozen=True, slots=True)
class Put:
    """Write a file: ``blob`` is the id of a blob already in the repository."""

    path: str
    blob: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a file, or a folder with all in it."""

    path: str


def apply_changes(index: pygit2.Index, changes: Sequence[Put | Drop]) -> None:
    """Make the changes in ``index``, one after the other.

    Raises:
        Refusal: 404 EntryNotFound when a deletion names nothing.
    """
    folders = {folder for entry in index for folder in _above(entry.path)}
    for change in changes:
        if isinstance(change, Put):
            _make_way(index, change.path, folders)
            index.add(pygit2.IndexEntry(change.path, pygit2.Oid(hex=change.blob), _FILE))
        else:
            _drop(index, change.path)


def _above(path: str) -> list[str]:
    """The folders that a path lies in."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _make_way(index: pygit2.Index, path: str, folders: set[str]) -> None:
    """A file takes the place of a folder, and a folder that of a file; ``folders`` are those there have been."""
    if path in folders:
        for each in [entry.path for entry in index if entry.path.startswith(path + "/")]:
            index.remove(each)
    for folder in _above(path):
        if folder in index:
            index.remove(folder)
        folders.add(folder)


def _drop(index: pygit2.Index, path: str) -> None:
    if path in index:
        index.remove(path)
        return
    inside = [entry.path for entry in index if entry.path.startswith(path + "/")]
    if not inside:
        raise entry_not_found(f"A file with this name doesn't exist: {path}")
    for each in inside:
        index.remove(each)
