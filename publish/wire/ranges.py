"""Reading parts of a remote file, at one commit, with as few requests as that takes.

The first range request goes to ``/resolve/``. A regular file answers 206 there and then; an LFS file answers
302 with a signed location, to which that and all later ranges go: one resolver request a file. The location
expires (3,600 s on the Hub, facts/hub-protocol.md, "Reading part of a remote file"): on 403 we resolve again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from publish.errors import HubError
from publish.wire.client import Client
from publish.wire.failures import Transient, refusal
from publish.wire.repo import RepoType

if TYPE_CHECKING:
    import httpx2

SKIP_LIMIT = 4 << 20  # so many bytes we skip or leave unread when a server answers 200 to a range request
EXPIRED = frozenset({401, 403, 404, 410})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RemoteFile:
    """A file of a commit. Safe to share between threads; holds no connection while nothing is read."""

    def __init__(
        self,
        client: Client,
        repo: str,
        commit: str,
        path: str,
        size: int,
        *,
        repo_type: RepoType = "model",
    ) -> None:
        self.client = client
        self.repo = repo
        self.commit = commit
        self.path = path
        self.size = size
        prefix = "datasets/" if repo_type == "dataset" else ""
        self.url = f"{client.endpoint.url}/{prefix}{repo}/resolve/{commit}/{quote(path)}"
        self._location: str | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RemoteFile({self.repo}@{self.commit[:12]}/{self.path})"

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length). See :meth:`read_into`."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`. A read that breaks off goes on from where it broke.

        Raises:
            HubError: the range is outside the file; the server sends another range or commit than asked for,
                or ignores ranges; or the failures of :meth:`Client.call`.
        """
        length = len(buffer)
        if offset < 0 or offset + length > self.size:
            what = f"bytes {offset}..{offset + length} of a file of {self.size}"
            raise HubError(what, self.url, "list the source again: the file is shorter than recorded")
        got = 0

        def once() -> None:
            nonlocal got
            while got < length:
                got += self._read_some(offset + got, buffer[got:])

        if length:
            self.client.call(f"reading {self.path}", once)

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        """One request; how many bytes it brought before it ended or broke off."""
        last = offset + len(buffer) - 1
        with self._answer(f"bytes={offset}-{last}") as response:
            skip = self._skipped(response, offset, last)
            got, want = 0, len(buffer)
            try:
                for chunk in response.iter_raw():
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    piece = memoryview(chunk)[skip : skip + want - got]
                    skip = 0
                    buffer[got : got + len(piece)] = piece
                    got += len(piece)
                    if got == want and response.status_code == 200:
                        break  # a 206 is read to its end, so that the connection is kept
            except Transient:
                if not got:
                    raise
        if not got:
            raise Transient("the answer has no bytes", where=self.url)
        return got

    @contextmanager
    def _answer(self, range_header: str) -> Iterator[httpx2.Response]:
        """The response that carries the bytes, from the known location or else from a fresh one."""
        location = self._location
        if location is not None:
            with self._get(location, range_header) as response:
                if response.status_code not in EXPIRED:
                    yield response
                    return
            self._forget(location)
        with self._get(self.url, range_header) as response:
            self._check_commit(response)
            if not response.has_redirect_location:
                yield response
                return
            location = urljoin(self.url, response.headers["location"])
            response.read()  # so that the connection is kept
        with self._lock:
            self._location = location
        with self._get(location, range_header) as response:
            if response.status_code in EXPIRED:
                self._forget(location)
                raise Transient(f"the signed location answers HTTP {response.status_code}", where=self.url)
            yield response

    @contextmanager
    def _get(self, url: str, range_header: str) -> Iterator[httpx2.Response]:
        headers = {**self.client.headers(url), "range": range_header, "accept-encoding": "identity"}
        session = self.client.session()
        with session.stream("GET", url, headers=headers, follow_redirects=False) as response:
            yield response

    def _forget(self, location: str) -> None:
        with self._lock:
            if self._location == location:
                self._location = None

    def _check_commit(self, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            response.read()
            self.client.check(response)
        told = response.headers.get("x-repo-commit")
        if told != self.commit:
            what = f"the Hub answers for commit {told}, not {self.commit}"
            raise HubError(what, self.url, "resolve the revision to a commit again")

    def _skipped(self, response: httpx2.Response, offset: int, last: int) -> int:
        """How many leading bytes of the answer to skip: 0 for a right 206.

        Raises:
            HubError: 4xx, or a 200 that would have us download much more than asked for.
            Transient: a 206 for another range than asked for.
        """
        status = response.status_code
        if status == 206:
            told = response.headers.get("content-range", "")
            found = _CONTENT_RANGE.fullmatch(told.strip())
            right = found is not None and (int(found[1]), int(found[2])) == (offset, last)
            if not right or (found is not None and found[3] not in ("*", str(self.size))):
                asked = f"{offset}-{last}/{self.size}"
                raise Transient(f"asked for bytes {asked}, answered {told!r}", where=self.url)
            if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
                raise Transient(f"a range comes encoded as {encoding}", where=self.url)
            if (size := response.headers.get("content-length")) not in (None, str(last + 1 - offset)):
                raise Transient(f"{last + 1 - offset} bytes announced as {size}", where=self.url)
            return 0
        if status == 200:
            if (size := response.headers.get("content-length")) not in (None, str(self.size)):
                raise Transient(f"a file of {self.size} bytes announced as {size}", where=self.url)
            surplus = self.size - (last + 1 - offset)
            if surplus > SKIP_LIMIT:
                what = f"the server ignores ranges: {surplus} bytes too many would be read"
                raise HubError(what, self.url, "use an endpoint that serves byte ranges, or a local folder")
            return offset
        response.read()
        raise refusal(f"reading {self.path}", self.url, status, response.text[:300])
