"""Names of repos, branches and files as requests give them, checked before the disk is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from publish.rehearsal.errors import HttpError, bad_request

KINDS: Mapping[str, str] = {"models": "model", "datasets": "dataset"}  # in paths of the API, in its messages
PLURALS: Mapping[str, str] = {kind: plural for plural, kind in KINDS.items()}
RESERVED = frozenset({"api", "cdn", "_lfs", "_rehearsal", "models", "datasets", "spaces", "kernels"})
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_LONGEST_NAME = 96
_LONGEST_PATH = 1024
_LONGEST_PART = 255
# git-check-ref-format: control characters, space and these; no "..", "@{", "//", no part that starts with "."
_NOT_IN_A_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|/$|^/|\.$")
_DOT_GIT = re.compile(r"\.git[ .]*|git~1", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RepoId:
    """A repo of one kind. ``kind`` is the plural that the API's paths have: models or datasets."""

    kind: str
    owner: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def web_path(self) -> str:
        """Path of its pages and files. Models have no prefix."""
        return self.full_name if self.kind == "models" else f"{self.kind}/{self.full_name}"


def repo_id(kind: str, owner: str, name: str) -> RepoId:
    """A checked :class:`RepoId`.

    Raises:
        HttpError: 400 when a name breaks the Hub's rules (at most 96 letters, digits, ``-``, ``_`` and ``.``).
    """
    for part in (owner, name):
        malformed = not _NAME.fullmatch(part) or ".." in part or "--" in part or part.lower().endswith(".git")
        if malformed or len(part) > _LONGEST_NAME:
            raise bad_request(f"Invalid repo name: {owner}/{name}")
    if owner.lower() in RESERVED:
        raise bad_request(f"Invalid repo name: {owner} is reserved")
    return RepoId(kind, owner, name)


def branch_name(name: str) -> str:
    """A checked branch or tag name.

    Raises:
        HttpError: 400 with the Hub's text.
    """
    malformed = _NOT_IN_A_REF.search(name) or name.startswith(("refs/", "-")) or name in ("", "HEAD", "@")
    if malformed or len(name.encode()) > _LONGEST_PART or COMMIT.fullmatch(name):
        raise bad_request(f"Invalid reference for a branch: {name!r}")
    return name


def file_path(path: object) -> str:
    """A checked path of a file inside a repo.

    Raises:
        HttpError: 422 for absolute paths, ``..``, empty parts, backslash, NUL and other control characters, ``.git``.
    """
    if not isinstance(path, str) or not path:
        raise HttpError(422, f"Invalid path: {path!r}")
    malformed = any(ord(char) < 0x20 or char in "\x7f\\" or 0xD800 <= ord(char) <= 0xDFFF for char in path)
    if malformed or len(path.encode(errors="replace")) > _LONGEST_PATH:
        raise HttpError(422, f"Invalid path: {path!r}")
    for part in path.split("/"):
        if part in ("", ".", "..") or _DOT_GIT.fullmatch(part) or len(part.encode()) > _LONGEST_PART:
            raise HttpError(422, f"Invalid path: {path!r}")
    return path
