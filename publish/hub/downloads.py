"""Reading files of a commit: ranges of a large file, and whole small files whose bytes are checked."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.failures import Refused, Transient, refusal
from publish.hub.reads import RepoType, TreeEntry, git_blob_sha1

if TYPE_CHECKING:
    import httpx2

SKIP_LIMIT = 4 << 20  # bytes to skip or leave unread when a server answers 200 to a range request
EXPIRED = frozenset({401, 403, 404, 410})  # of a signed location
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_BLOB = re.compile(r'"([0-9a-f]{40})"')


class RemoteFile:
    """A file of a commit, read by position. Threads may share it; it holds no connection between reads.

    A file in LFS is resolved once: its signed location is kept for further reads until it expires.
    """

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
        """Fill `buffer` with the bytes at `offset`. A read that is cut off continues where it stopped.

        Raises:
            HubError: the range is outside the file; the server sends another range or commit than the one requested,
                or ignores ranges; or the failures of :meth:`Client.call`.
        """
        length = len(buffer)
        if offset < 0 or offset + length > self.size:
            what = f"bytes {offset}..{offset + length} of a file of {self.size} bytes"
            raise HubError(what, self.url, "list the source again: the file is shorter than recorded")
        got = 0

        def once() -> None:
            nonlocal got
            while got < length:
                got += self._read_some(offset + got, buffer[got:])

        if length:
            self.client.call(f"reading {self.path}", once)

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        """Send one request, and return how many bytes it brought until it ended or was cut off."""
        last = offset + len(buffer) - 1
        with self._response(f"bytes={offset}-{last}") as response:
            skip = self._bytes_before(response, offset, last)
            got, wanted = 0, len(buffer)
            try:
                for chunk in response.iter_raw():
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    piece = memoryview(chunk)[skip : skip + wanted - got]
                    skip = 0
                    buffer[got : got + len(piece)] = piece
                    got += len(piece)
                    if got == wanted and response.status_code == 200:
                        break  # a 206 is read to its end, so that the connection is kept
            except Transient:
                if not got:
                    raise
        if not got:
            raise Transient("the answer has no bytes", where=self.url)
        return got

    @contextmanager
    def _response(self, range_header: str) -> Iterator[httpx2.Response]:
        """The response that carries the bytes, from the known location or from a newly resolved one."""
        location = self._location
        if location is not None:
            with self._get(location, range_header) as response:
                if response.status_code not in EXPIRED:
                    yield response
                    return
            self._drop_location(location)
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
                self._drop_location(location)
                raise Transient(f"the signed location answers HTTP {response.status_code}", where=self.url)
            yield response

    @contextmanager
    def _get(self, url: str, range_header: str) -> Iterator[httpx2.Response]:
        headers = {**self.client.headers(url), "range": range_header, "accept-encoding": "identity"}
        session = self.client.session()
        with session.stream("GET", url, headers=headers, follow_redirects=False) as response:
            yield response

    def _drop_location(self, location: str) -> None:
        with self._lock:
            if self._location == location:
                self._location = None

    def _check_commit(self, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            response.read()
            self.client.check(response)
        commit = response.headers.get("x-repo-commit")
        if commit != self.commit:
            what = f"the Hub answers for commit {commit}, not {self.commit}"
            raise HubError(what, self.url, "resolve the revision to a commit again")

    def _bytes_before(self, response: httpx2.Response, offset: int, last: int) -> int:
        """How many bytes of the response come before the requested range: none if the server heeds ranges.

        Raises:
            HubError: 4xx, or a 200 that would make us download much more than the range.
            Transient: a 206 for another range.
        """
        status = response.status_code
        if status == 206:
            value = response.headers.get("content-range", "")
            found = _CONTENT_RANGE.fullmatch(value.strip())
            right = found is not None and (int(found[1]), int(found[2])) == (offset, last)
            if not right or (found is not None and found[3] not in ("*", str(self.size))):
                requested = f"{offset}-{last}/{self.size}"
                raise Transient(f"requested bytes {requested}, got {value!r}", where=self.url)
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


def fetch_file(client: Client, repo: str, commit: str, entry: TreeEntry, *, repo_type: RepoType = "model") -> bytes:
    """The bytes of `entry`, checked against its git blob id or its LFS sha256: 1 request, 2 for a file in LFS.

    Raises:
        HubError: the bytes are not the listed ones, even when read again; or the failures of :meth:`Client.call`.
    """
    remote = RemoteFile(client, repo, commit, entry.path, entry.size, repo_type=repo_type)

    def once() -> bytes:
        content = remote.read(0, entry.size)
        if entry.lfs_sha256 is not None:
            right = hashlib.sha256(content).hexdigest() == entry.lfs_sha256
        else:
            right = git_blob_sha1(content) == entry.oid
        if not right:
            raise Transient(f"the bytes of {entry.path} are not those that the Hub lists", where=remote.url)
        return content

    return client.call(f"reading {entry.path} of {repo}", once)


def fetch_if_exists(
    client: Client, repo: str, commit: str, path: str, *, limit: int = 16 << 20, repo_type: RepoType = "model"
) -> bytes | None:
    """The bytes of a file that may not exist and is not in LFS; None if it does not exist. One request.

    They are checked against the ETag, which is the id of the git blob (docs/hub-protocol.md, "Reading files"), and
    read again if they differ.

    Raises:
        HubError: the file is larger than `limit` bytes, or the failures of :meth:`Client.call`.
    """
    url = RemoteFile(client, repo, commit, path, 0, repo_type=repo_type).url

    def once() -> bytes:
        with client.session().stream("GET", url, headers=client.headers(url)) as response:
            client.check(response)
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise HubError(f"{path} is larger than {limit} bytes", url, "look at the file on the Hub")
            etag = _BLOB.fullmatch(response.headers.get("etag", "").removeprefix("W/"))
        if etag is not None and etag[1] != git_blob_sha1(bytes(content)):
            raise Transient(f"{len(content)} bytes that do not match the ETag", where=url)
        return bytes(content)

    try:
        return client.call(f"reading {path} of {repo}", once)
    except Refused as error:
        if error.status == 404 and error.code == "EntryNotFound":
            return None
        raise
