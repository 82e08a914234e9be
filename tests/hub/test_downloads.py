from __future__ import annotations

import hashlib
import random
import threading

import pytest

from publish.errors import HubError
from publish.hub.client import Client
from publish.hub.downloads import SKIP_LIMIT, RemoteFile, fetch_file, fetch_if_exists
from publish.hub.failures import Refused, Unavailable
from publish.hub.reads import TreeEntry, git_blob_sha1
from tests.hub.scripted import TOKEN, Answer, Asked, Scripted

SHA = "c" * 40
CONTENT = random.Random(5).randbytes(300_000)


@pytest.fixture
def client(scripted_client: Client) -> Client:
    return scripted_client


class Store:
    """A Hub's resolver in front of a store, as far as reading a file goes."""

    def __init__(self, scripted: Scripted, *, lfs: bool, content: bytes = CONTENT) -> None:
        self.lfs = lfs
        self.content = content
        self.expired = 0
        self.faults: list[Answer | None] = []
        self.commit = SHA
        self.ignore_ranges = False
        scripted.answer = self.answer

    def answer(self, asked: Asked) -> Answer | None:
        if "/resolve/" in asked.path and self.lfs:
            return Answer(302, b"moved", {"location": "/store/x?sig=secret", "x-repo-commit": self.commit})
        if self.lfs and self.expired:
            self.expired -= 1
            return Answer(403, b"expired")
        if self.faults:
            return self.faults.pop(0)
        if self.ignore_ranges:
            return Answer(200, self.content, {"x-repo-commit": self.commit})
        start, end = map(int, asked.headers["range"].removeprefix("bytes=").split("-"))
        content_range = f"bytes {start}-{end}/{len(self.content)}"
        headers = {"content-range": content_range, "x-repo-commit": self.commit}
        return Answer(206, self.content[start : end + 1], headers)


@pytest.mark.parametrize("lfs", [True, False])
def test_one_resolve_then_ranges(lfs: bool, client: Client, scripted: Scripted) -> None:
    Store(scripted, lfs=lfs)
    remote = RemoteFile(client, "a/b", SHA, "x/model 1.pt", len(CONTENT))
    for offset, length in ((0, 10), (299_990, 10), (1000, 200_000), (5, 0)):
        assert remote.read(offset, length) == CONTENT[offset : offset + length]
    assert len(scripted.asked) == (4 if lfs else 3)
    assert scripted.asked[0].path == f"/a/b/resolve/{SHA}/x/model%201.pt"
    assert sum("/resolve/" in asked.path for asked in scripted.asked) == (1 if lfs else 3)


def test_datasets_have_a_prefix(client: Client, scripted: Scripted) -> None:
    Store(scripted, lfs=False)
    RemoteFile(client, "a/b", SHA, "x", len(CONTENT), repo_type="dataset").read(0, 1)
    assert scripted.asked[0].path == f"/datasets/a/b/resolve/{SHA}/x"


def test_a_read_that_breaks_off_goes_on(client: Client, scripted: Scripted) -> None:
    store = Store(scripted, lfs=False)
    content_range = {"content-range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", "x-repo-commit": SHA}
    store.faults = [Answer(206, CONTENT, dict(content_range), cut=100_000), None]
    remote = RemoteFile(client, "a/b", SHA, "x", len(CONTENT))
    assert remote.read(0, len(CONTENT)) == CONTENT
    assert scripted.asked[-1].headers["range"] != scripted.asked[0].headers["range"]


def test_an_expired_location_is_resolved_again(client: Client, scripted: Scripted) -> None:
    store = Store(scripted, lfs=True)
    remote = RemoteFile(client, "a/b", SHA, "x", len(CONTENT))
    remote.read(0, 10)
    store.expired = 1
    assert remote.read(10, 10) == CONTENT[10:20]
    assert sum("/resolve/" in asked.path for asked in scripted.asked) == 2
    store.expired = 1000
    with pytest.raises(Unavailable, match="signed location"):
        remote.read(20, 10)


@pytest.mark.parametrize("content_range", ["bytes 1-10/300000", "bytes 0-9/299999", "bytes 0-8/300000", "noise", ""])
def test_a_range_that_was_not_requested_is_an_error(content_range: str, client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(206, b"x" * 10, {"content-range": content_range, "x-repo-commit": SHA})
    with pytest.raises(Unavailable, match="requested bytes"):
        RemoteFile(client, "a/b", SHA, "x", len(CONTENT)).read(0, 10)


def test_one_wrong_range_is_read_again(client: Client, scripted: Scripted) -> None:
    store = Store(scripted, lfs=False)
    store.faults = [Answer(206, b"x" * 10, {"content-range": "bytes 5-14/300000", "x-repo-commit": SHA})]
    assert RemoteFile(client, "a/b", SHA, "x", len(CONTENT)).read(0, 10) == CONTENT[:10]


def test_another_commit_is_an_error(client: Client, scripted: Scripted) -> None:
    store = Store(scripted, lfs=True)
    store.commit = "d" * 40
    with pytest.raises(HubError, match="not c"):
        RemoteFile(client, "a/b", SHA, "x", len(CONTENT)).read(0, 10)


def test_a_small_file_whole_is_cut_out_of(client: Client, scripted: Scripted) -> None:
    store = Store(scripted, lfs=False)
    store.ignore_ranges = True
    assert RemoteFile(client, "a/b", SHA, "x", len(CONTENT)).read(1000, 70_000) == CONTENT[1000:71_000]


def test_a_large_file_whole_is_refused(client: Client, scripted: Scripted) -> None:
    size = SKIP_LIMIT + 20
    scripted.answer = lambda asked: Answer(200, b"x" * 100, {"content-length": str(size), "x-repo-commit": SHA}, cut=9)
    with pytest.raises(HubError, match="ignores ranges"):
        RemoteFile(client, "a/b", SHA, "x", size).read(0, 10)
    assert len(scripted.asked) == 1


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (299_999, 2), (300_001, 0)])
def test_outside_the_file(offset: int, length: int, client: Client, scripted: Scripted) -> None:
    with pytest.raises(HubError, match="bytes"):
        RemoteFile(client, "a/b", SHA, "x", len(CONTENT)).read(offset, length)
    assert not scripted.asked


def test_absent_ends_at_once(client: Client, scripted: Scripted) -> None:
    scripted.answer = lambda asked: Answer(404, b"", {"x-error-code": "EntryNotFound"})
    with pytest.raises(Refused) as caught:
        RemoteFile(client, "a/b", SHA, "x", 10).read(0, 5)
    assert caught.value.code == "EntryNotFound"
    assert fetch_if_exists(client, "a/b", SHA, "x") is None


def test_the_token_stays_with_the_endpoint(client: Client, scripted: Scripted) -> None:
    other = Scripted()
    try:
        store = Store(other, lfs=False)
        headers = {"location": f"{other.url}/store/x?X-Amz-Signature=secret", "x-repo-commit": SHA}
        scripted.answer = lambda asked: Answer(302, b"", dict(headers))
        remote = RemoteFile(client, "a/b", SHA, "x", len(CONTENT))
        assert remote.read(0, 10) == CONTENT[:10]
        assert scripted.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in other.asked[0].headers
        store.faults = [Answer(503) for _ in range(50)]
        with pytest.raises(Unavailable) as caught:
            remote.read(0, 10)
        assert "secret" not in str(caught.value)
    finally:
        other.close()


def test_many_threads_one_file(client: Client, scripted: Scripted) -> None:
    Store(scripted, lfs=True)
    remote = RemoteFile(client, "a/b", SHA, "x", len(CONTENT))
    buffer = bytearray(len(CONTENT))
    view = memoryview(buffer)
    step = len(CONTENT) // 10
    threads = [
        threading.Thread(target=remote.read_into, args=(i * step, view[i * step : (i + 1) * step])) for i in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bytes(buffer) == CONTENT


def test_whole_files_are_proven(client: Client, scripted: Scripted) -> None:
    Store(scripted, lfs=False)
    size = len(CONTENT)
    assert fetch_file(client, "a/b", SHA, TreeEntry("x", size, git_blob_sha1(CONTENT))) == CONTENT
    lfs = TreeEntry("x", size, "0" * 40, hashlib.sha256(CONTENT).hexdigest())
    assert fetch_file(client, "a/b", SHA, lfs) == CONTENT
    for wrong in (TreeEntry("x", size, "0" * 40), TreeEntry("x", size, git_blob_sha1(CONTENT), "0" * 64)):
        with pytest.raises(HubError, match="not those that the Hub lists"):
            fetch_file(client, "a/b", SHA, wrong)


def test_connections_are_kept(client: Client, scripted: Scripted) -> None:
    Store(scripted, lfs=True)
    remote = RemoteFile(client, "a/b", SHA, "x", len(CONTENT))
    sockets = set()
    original = scripted.reply
    scripted.reply = lambda handler, answer: (sockets.add(handler.client_address), original(handler, answer))[1]  # type: ignore[method-assign]
    for offset in range(0, 200_000, 20_000):
        remote.read(offset, 20_000)
    assert len(sockets) == 1
