"""What an audit reads of a Hub: refs, trees, small files, safetensors headers by range. Answers are cached on disk.

A small file is checked against the digest that the tree states. Weight files are not read beyond their header, except
for the ranges that ``--deep`` asks for.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from publish.atomic import read_checksummed, write_checksummed
from publish.audit.records import digest
from publish.errors import HubError, StorageError
from publish.formats.safetensors import PREFIX, Header, InvalidHeader, header_length, parse_header, truncated_header
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile, fetch_file
from publish.hub.endpoint import cache_folder
from publish.hub.reads import TreeEntry, list_branches, list_tree

CONCURRENCY = 16  # requests at a time
MAX_SMALL_FILE = 16 << 20  # bytes
_PEEK = 64  # bytes read of a truncated header, to tell it from a file of another kind
_PLAIN_NAME = re.compile(r"[0-9A-Za-z._-]{1,128}")
T = TypeVar("T")
R = TypeVar("R")


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of every item, several at a time, in the order of ``items``; the first failure ends it."""
    with ThreadPoolExecutor(CONCURRENCY, "audit") as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Cache:
    """Trees by commit, small files, headers and ranges by digest: content that never changes.

    They are files with a checksum below ``folder``; a truncated or edited one counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, endpoint: str) -> Cache:
        """The cache of one Hub, below ``HF_HOME``."""
        return cls(cache_folder() / "audit" / hashlib.sha256(endpoint.encode()).hexdigest()[:16])

    def get(self, kind: str, key: str) -> bytes | None:
        """What was put under ``key``; None where nothing was.

        Raises:
            StorageError: the folder cannot be read.
        """
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
        """None for a key that is not a plain file name: keys are what a server claims, and such a one is not kept."""
        return self.folder / kind / key[:2] / key if _PLAIN_NAME.fullmatch(key) and key.strip(".") else None

    def _error(self, error: OSError) -> StorageError:
        fix = "set HF_HOME to a folder that can be written"
        return StorageError(f"cannot use the audit's cache: {error.strerror}", self.folder, fix)


class Reader:
    """Reads one Hub through a cache. Safe to share between threads. ``weight_bytes``: of tensors, downloaded so far."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self.client = client
        self.cache = cache
        self.weight_bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}

    def branches(self, repo: str) -> Mapping[str, str]:
        """Branch -> commit. Never cached: branches move.

        Raises:
            HubError: no such repo, no access, no connection; or the repo has no branches.
        """
        tips = list_branches(self.client, repo)
        if not tips:
            raise HubError("the repo has no branches, not even main", repo, "check its name and HF_ENDPOINT")
        return tips

    def tree(self, repo: str, commit: str) -> Mapping[str, TreeEntry]:
        """The files of a commit by path; one request per 1000 files."""
        kind = f"trees/{repo.replace('/', '--')}"
        cached = self.cache.get(kind, commit)
        if cached is not None:
            return {entry["path"]: TreeEntry(**entry) for entry in json.loads(cached)}
        entries = list_tree(self.client, repo, commit)
        self.cache.put(kind, commit, json.dumps([asdict(entry) for entry in entries]).encode())
        return {entry.path: entry for entry in entries}

    def small_file(self, repo: str, commit: str, entry: TreeEntry) -> bytes:
        """The content of a small file: 1 request, 2 where it is in LFS.

        Raises:
            HubError: it has more than `MAX_SMALL_FILE` bytes, its bytes do not match the tree's digest, or it cannot
                be read.
        """
        with self._lock:
            reading = self._reading.setdefault(digest(entry), threading.Lock())
        with reading:  # many branches have the same config: only one of them downloads it
            cached = self.cache.get("files", digest(entry))
            if cached is not None:
                return cached
            if entry.size > MAX_SMALL_FILE:
                what = f"{entry.path} has {entry.size:,} bytes; at most {MAX_SMALL_FILE:,} were expected"
                raise HubError(what, f"{repo}@{commit}/{entry.path}", "check what the file is; no card is this large")
            content = fetch_file(self.client, repo, commit, entry)
            self.cache.put("files", digest(entry), content)
            return content

    def header(self, repo: str, commit: str, entry: TreeEntry, guess: int = PREFIX) -> Header:
        """The header of a safetensors file. ``guess``: bytes to read first; a request is saved where they suffice.

        Raises:
            HubError: the file does not start with a safetensors header, or cannot be read.
        """
        cached = self.cache.get("headers", digest(entry))
        try:
            if cached is not None:
                return _parse(cached, entry.size)
            content = self._read_header(self.file(repo, commit, entry), guess)
            header = _parse(content, entry.size)
        except InvalidHeader as error:
            fix = "run the audit again; if the error stays, the file is damaged: publish the branch again"
            raise HubError(f"{entry.path}: {error}", f"{repo}@{commit}/{entry.path}", fix) from error
        self.cache.put("headers", digest(entry), content)
        return header

    def weight_range(self, file: RemoteFile, sha256: str, offset: int, length: int) -> bytes:
        """Bytes of tensors, for ``--deep``."""
        key = f"{sha256}-{offset}-{length}"
        content = self.cache.get("ranges", key)
        if content is None:
            content = file.read(offset, length)
            self._count_weights(length)
            self.cache.put("ranges", key, content)
        return content

    def file(self, repo: str, commit: str, entry: TreeEntry) -> RemoteFile:
        """A file to read by range; makes no request."""
        return RemoteFile(self.client, repo, commit, entry.path, entry.size)

    def _count_weights(self, count: int) -> None:
        with self._lock:
            self.weight_bytes += count

    def _read_header(self, file: RemoteFile, guess: int) -> bytes:
        """The bytes up to the end of the header; fewer where the file ends inside it."""
        content = file.read(0, min(file.size, guess))
        if len(content) < PREFIX:
            return content
        end = PREFIX + header_length(content[:PREFIX])
        if end > file.size:
            end = min(file.size, PREFIX + _PEEK)
        if len(content) < end:
            content += file.read(len(content), end - len(content))
        self._count_weights(len(content) - end)
        return content[:end]


def _parse(content: bytes, size: int) -> Header:
    """The header in the first bytes of a file of ``size`` bytes. Raises InvalidHeader."""
    if len(content) < PREFIX:
        return truncated_header(0, size)
    length = header_length(content[:PREFIX])
    if PREFIX + length > size:
        if content[PREFIX:].lstrip()[:1] not in (b"{", b""):
            raise InvalidHeader(f"it claims a header of {length:,} bytes, but does not continue with one")
        return truncated_header(length, size)
    return parse_header(content[PREFIX:])
