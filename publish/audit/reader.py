"""What an audit asks of a Hub: refs, trees, small files whole, safetensors headers by range. Every answer is kept.

A file's content is proven by the digest that the tree states. Weight files are never read beyond their header.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from publish.atomic import read_checksummed, write_checksummed
from publish.audit.records import digest
from publish.errors import HubError, StorageError
from publish.formats.safetensors import PREFIX, Header, NoHeader, cut_short, length_of, parse_header
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile, fetch_file
from publish.hub.reads import TreeEntry, list_branches, list_tree

# What was read before, on disk: trees by commit, small files and headers by their own digest. These never change.


_NAME = re.compile(r"[0-9A-Za-z._-]{1,128}")


class Cache:
    """Sealed files below ``folder``; a torn or edited one counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, endpoint: str) -> Cache:
        """The cache of one Hub, below ``HF_HOME``."""
        from huggingface_hub import constants

        home = Path(os.environ.get("HF_HOME", constants.HF_HOME))
        return cls(home / "publish" / "audit" / hashlib.sha256(endpoint.encode()).hexdigest()[:16])

    def get(self, kind: str, key: str) -> bytes | None:
        """What was put there; None where nothing was."""
        path = self._path(kind, key)
        try:
            return None if path is None else read_checksummed(path)
        except OSError as error:
            raise self._error(error) from error

    def put(self, kind: str, key: str, content: bytes) -> None:
        """Keep ``content``; another process may do so at the same time.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = self._path(kind, key)
        if path is None:
            return
        try:
            write_checksummed(path, content)
        except OSError as error:
            raise self._error(error) from error

    def _path(self, kind: str, key: str) -> Path | None:
        """None for a key that is no plain name: a server made it up, and it is not kept."""
        return self.folder / kind / key[:2] / key if _NAME.fullmatch(key) and key.strip(".") else None

    def _error(self, error: OSError) -> StorageError:
        return StorageError(f"cannot use the audit's cache: {error.strerror}", self.folder, "set HF_HOME elsewhere")


MOST = 16 << 20  # bytes of a small file
_PEEK = 64  # bytes of a header that is cut short, to tell it from something else
_MEND = "read it again; if it stays, it is no safetensors file: publish the branch anew"


class Reader:
    """Reads one Hub, with a cache. Safe to share between threads. ``weight_bytes``: bytes of tensors that were read."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self.client = client
        self.cache = cache
        self.weight_bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}

    def branches(self, repo: str) -> Mapping[str, str]:
        """Branch -> commit, asked anew every time.

        Raises:
            HubError: no such repo, no access, no connection; or there are none.
        """
        tips = list_branches(self.client, repo)
        if not tips:
            raise HubError("the repo has no branches, not even main", repo, "check its name and HF_ENDPOINT")
        return tips

    def tree(self, repo: str, commit: str) -> Mapping[str, TreeEntry]:
        """The files of a commit by path; a request per 1000."""
        kind = f"trees/{repo.replace('/', '--')}"
        kept = self.cache.get(kind, commit)
        if kept is not None:
            return {entry["path"]: TreeEntry(**entry) for entry in json.loads(kept)}
        entries = list_tree(self.client, repo, commit)
        self.cache.put(kind, commit, json.dumps([asdict(entry) for entry in entries]).encode())
        return {entry.path: entry for entry in entries}

    def text(self, repo: str, commit: str, entry: TreeEntry) -> bytes:
        """A small file: 1 request, 2 where it is in LFS.

        Raises:
            HubError: it is larger than any card or config, its bytes are not those of the tree, or it cannot be read.
        """
        with self._lock:
            reading = self._reading.setdefault(digest(entry), threading.Lock())
        with reading:  # many branches have the same config: it is asked for once
            return self._text(repo, commit, entry)

    def _text(self, repo: str, commit: str, entry: TreeEntry) -> bytes:
        kept = self.cache.get("files", digest(entry))
        if kept is not None:
            return kept
        if entry.size > MOST:
            where = f"{repo}@{commit}/{entry.path}"
            raise HubError(f"{entry.path} has {entry.size:,} bytes", where, "look at the file: no card is so large")
        content = fetch_file(self.client, repo, commit, entry)
        self.cache.put("files", digest(entry), content)
        return content

    def header(self, repo: str, commit: str, entry: TreeEntry, guess: int = PREFIX) -> Header:
        """A safetensors file's header. ``guess``: bytes up to its end in a file of the same name; saves a request.

        Raises:
            HubError: the bytes at the file's start are no header, or cannot be read.
        """
        content = self.cache.get("headers", digest(entry))
        try:
            if content is None:
                content = self._begin(self.file(repo, commit, entry), guess)
                header = _header(content, entry.size)
                self.cache.put("headers", digest(entry), content)
                return header
            return _header(content, entry.size)
        except NoHeader as error:
            raise HubError(f"{entry.path}: {error}", f"{repo}@{commit}/{entry.path}", _MEND) from error

    def weights(self, file: RemoteFile, sha256: str, offset: int, length: int) -> bytes:
        """Bytes of tensors, for ``--deep``."""
        key = f"{sha256}-{offset}-{length}"
        content = self.cache.get("ranges", key)
        if content is None:
            content = file.read(offset, length)
            self._count(length)
            self.cache.put("ranges", key, content)
        return content

    def file(self, repo: str, commit: str, entry: TreeEntry) -> RemoteFile:
        """A file to be read by range; nothing is asked yet."""
        return RemoteFile(self.client, repo, commit, entry.path, entry.size)

    def _count(self, weight_bytes: int) -> None:
        with self._lock:
            self.weight_bytes += weight_bytes

    def _begin(self, file: RemoteFile, guess: int) -> bytes:
        """The file's bytes up to the end of the header, or its first few where it ends before."""
        content = file.read(0, min(file.size, guess))
        if len(content) < PREFIX:
            return content
        end = PREFIX + length_of(content[:PREFIX])
        if end > file.size:
            end = min(file.size, PREFIX + _PEEK)
        if len(content) < end:
            content += file.read(len(content), end - len(content))
        self._count(len(content) - end)
        return content[:end]


def _header(content: bytes, size: int) -> Header:
    if len(content) < PREFIX:
        return cut_short(0, size)
    length = length_of(content[:PREFIX])
    if PREFIX + length > size:
        if content[PREFIX:].lstrip()[:1] not in (b"{", b""):
            raise NoHeader(f"a header of {length:,} bytes is claimed, and what follows is none")
        return cut_short(length, size)
    return parse_header(content[PREFIX:])
