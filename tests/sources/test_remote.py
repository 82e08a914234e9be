"""What comes over a network is proven before it is believed."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from publish.errors import CheckpointError, SourceError
from publish.formats.torch_archive import Archive
from publish.sources.files import ByteCount, Checksum
from publish.sources.remote import SmallFile, SpooledFile

CONTENT = random.Random(3).randbytes(400_000)


class Lying:
    """A remote file whose first ``lies`` reads of a range have a wrong byte in them."""

    def __init__(self, lies: int, content: bytes = CONTENT) -> None:
        self.lies, self.content, self.size = lies, content, len(content)
        self.asked: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.asked.append((offset, len(buffer)))
        buffer[:] = self.content[offset : offset + len(buffer)]
        if self.lies:
            self.lies -= 1
            buffer[len(buffer) // 2] ^= 1


Spooled = Callable[[Lying], SpooledFile]


@pytest.fixture
def spooled() -> Iterator[Spooled]:
    opened: list[SpooledFile] = []

    def make(remote: Any) -> SpooledFile:
        opened.append(SpooledFile(remote, "lab/raw@step0/x.pt", ByteCount()))
        return opened[-1]

    yield make
    for file in opened:
        file.close()


def checksum(offset: int, length: int) -> Checksum:
    return Checksum(offset, length, zlib.crc32(CONTENT[offset : offset + length]))


def test_wrong_bytes_are_fetched_again_and_only_they(spooled: Spooled) -> None:
    remote = Lying(lies=1)
    file = spooled(remote)
    file.prefetch([(0, 100_000), (200_000, 50_000)], [checksum(0, 100_000), checksum(200_000, 50_000)])
    assert remote.asked == [(0, 100_000), (200_000, 50_000), (0, 100_000)]
    assert file.read(0, 100_000) == CONTENT[:100_000]
    assert file.read(200_000, 50_000) == CONTENT[200_000:250_000]


def test_bytes_that_stay_wrong_are_an_error_that_says_where(spooled: Spooled) -> None:
    with pytest.raises(SourceError, match="bytes 100 to 50,100 do not match") as caught:
        spooled(Lying(lies=99)).prefetch([(100, 50_000)], [checksum(100, 50_000)])
    assert caught.value.where == "lab/raw@step0/x.pt"


def test_what_has_no_checksum_or_is_not_here_is_not_compared(spooled: Spooled) -> None:
    remote = Lying(lies=0)
    spooled(remote).prefetch([(0, 50_000)], [Checksum(0, 50_000, 0), Checksum(0, 60_000, 1)])
    assert remote.asked == [(0, 50_000)]


def test_a_small_file_is_fetched_once() -> None:
    fetched = []
    count = ByteCount()

    def fetch() -> bytes:
        fetched.append(1)
        return CONTENT[:1000]

    file = SmallFile(fetch, "x", 1000, count)
    assert (file.read(10, 5), file.read(990, 10)) == (CONTENT[10:15], CONTENT[990:1000])
    assert (len(fetched), count.value) == (1, 1000)
    with pytest.raises(SourceError, match="from a file of 1,000"):
        file.read(990, 11)


def saved(change: Callable[[bytearray, zipfile.ZipInfo], None]) -> Lying:
    """A torch file whose pickle's member was changed."""
    out = io.BytesIO()
    torch.save({"w": torch.arange(10.0)}, out)
    info = next(i for i in zipfile.ZipFile(out).infolist() if i.filename.endswith("data.pkl"))
    content = bytearray(out.getvalue())
    change(content, info)
    return Lying(0, bytes(content))


def test_a_pickle_that_is_not_what_its_checksum_says_is_refused(spooled: Spooled) -> None:
    def flip(content: bytearray, info: zipfile.ZipInfo) -> None:
        content[content.index(b"ctorch._utils\n")] ^= 1

    assert Archive.open(spooled(saved(lambda *_: None))).read("data.pkl", 1 << 20)
    with pytest.raises(CheckpointError, match=r"data\.pkl' does not match its checksum"):
        Archive.open(spooled(saved(flip))).read("data.pkl", 1 << 20)


def test_an_archive_without_checksums_is_read(spooled: Spooled) -> None:
    def without(content: bytearray, info: zipfile.ZipInfo) -> None:
        entry = content.rindex(info.filename.encode()) - 46  # its central directory header
        content[entry + 16 : entry + 20] = bytes(4)

    assert Archive.open(spooled(saved(without))).read("data.pkl", 1 << 20)


def test_a_read_that_failed_is_no_reason_to_fail_again_at_the_end(spooled: Spooled) -> None:
    class Failing(Lying):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            held.append(buffer[:10])  # as the frames of a traceback do
            raise SourceError("gone", "x", "y")

    held: list[memoryview] = []
    file = spooled(Failing(0))
    with pytest.raises(SourceError, match="gone"):
        file.read(0, 100_000)
    file.close()
