"""Uploads from a stock client that has hf_xet: the Hub says where, the client writes there, a commit takes it over.

Outside facts (facts/hub-protocol.md, "Xet vs LFS: who decides"): a client with hf_xet never falls back to LFS, and
takes ``local:///folder`` for an address of Xet storage. It writes xorbs and shards into that folder. A shard lists
its files: Xet hash, segments, and the sha256 by which a commit names them (Hugging Face's Xet specification, "MDB
shard file format"). Every token names a folder of its own, because the client keeps a database in it locked.
Downloads are plain HTTP.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import Response

from publish.rehearsal.errors import Refusal
from publish.rehearsal.http.request import Call, answer
from publish.rehearsal.names import RepoId
from publish.rehearsal.storage.lfs import LfsStore

_LIFETIME = 3600
_RECORD = 48  # every record of a shard: a hash of 32 bytes, then numbers
_VERIFIED, _WITH_METADATA = 1 << 31, 1 << 30
_END = b"\xff" * 32


@dataclass(frozen=True, slots=True)
class _XetFile:
    sha256: str
    hash: str
    size: int
    folder: Path


class XetInbox:
    """Where clients put Xet uploads to the repo at ``repository``."""

    def __init__(self, repository: Path) -> None:
        self.root = repository / "xet"

    def new_folder(self) -> Path:
        folder = self.root / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def take(self, oid: str, into: LfsStore) -> int:
        """Make the file with this sha256 an LFS object if it is here; how many bytes came in by that.

        A folder all of whose files are LFS objects has done its work and is removed.
        """
        taken = 0
        for found in [file for file in self._files() if file.sha256 == oid]:
            if into.size(oid) is None:
                _reassemble(found, into)
                taken += found.size
            if all(into.size(file.sha256) is not None for file in _files_in(found.folder)):
                shutil.rmtree(found.folder)
        return taken

    def _files(self) -> Iterator[_XetFile]:
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            yield from _files_in(folder)


def stored_size(call: Call, repo: RepoId, oid: str) -> int | None:
    """Size of an LFS object of the repo, taking it over from a Xet upload if need be; None when it was not brought."""
    lfs = call.hub.store.lfs(repo)
    with call.hub.store.lock(repo, "xet"):
        if taken := XetInbox(call.hub.store.directory(repo)).take(oid, lfs):
            call.hub.stats.received("xet", taken)
    return lfs.size(oid)


def token(call: Call) -> Response:
    """Where a client may write. Read tokens are not given: downloads are plain HTTP."""
    repo = call.repo
    if call.params["access"] == "read":
        call.may_download(repo)
        raise Refusal(404, "The rehearsal Hub sends no file by Xet; set HF_HUB_DISABLE_XET=1")
    call.writer()
    call.may_read(repo)
    folder = XetInbox(call.hub.store.directory(repo)).new_folder()
    expires = int(time.time()) + _LIFETIME  # the client's clock, not the injected one
    document = {"accessToken": "rehearsal", "exp": expires, "casUrl": f"local://{folder.absolute()}"}
    headers = {
        "X-Xet-Cas-Url": document["casUrl"],
        "X-Xet-Access-Token": document["accessToken"],
        "X-Xet-Token-Expiration": str(expires),
    }
    return answer(document, headers={name: str(value) for name, value in headers.items()})


def _files_in(folder: Path) -> Iterator[_XetFile]:
    for shard in sorted(folder.glob("xet/xorbs/shards/*.mdb")):
        yield from _listed(shard.read_bytes(), folder)


def _listed(shard: bytes, folder: Path) -> Iterator[_XetFile]:
    """The files of a shard that come with a sha256. One that is still being written ends where it ends."""
    at = _RECORD  # the header
    while at + _RECORD <= len(shard) and (head := shard[at : at + 32]) != _END:
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        after = at + _RECORD * (1 + segments * (2 if flags & _VERIFIED else 1))
        if after + _RECORD > len(shard):
            return
        size = sum(struct.unpack_from("<I", shard, at + _RECORD * (1 + i) + 36)[0] for i in range(segments))
        if flags & _WITH_METADATA:
            yield _XetFile(_hexadecimal(shard[after : after + 32]), _hexadecimal(head), size, folder)
            after += _RECORD
        at = after


def _hexadecimal(digest: bytes) -> str:
    """A Xet hash as text: four little-endian numbers of 64 bits, each in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def _reassemble(file: _XetFile, into: LfsStore) -> None:
    """Read the file out of its xorbs into an LFS object; digest and size are checked on the way.

    The client may still hold its database: this works on a copy, with the xorbs as hard links.
    """
    import hf_xet

    with tempfile.TemporaryDirectory(dir=file.folder.parent, prefix=".") as copy:
        shutil.copytree(file.folder / "xet" / "xorbs", Path(copy) / "xet" / "xorbs", copy_function=_link_xorbs)
        group: Any = hf_xet.XetSession().new_download_stream_group(endpoint=f"local://{Path(copy).absolute()}")
        incoming = into.incoming()
        try:
            for chunk in group.download_stream(hf_xet.XetFileInfo(file.hash, file.size)):
                incoming.write(chunk)
        except BaseException:
            incoming.discard()
            raise
        into.accept(incoming, file.sha256, file.size)


def _link_xorbs(source: str, target: str) -> None:
    if Path(source).name.startswith("default."):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


HANDLERS = {"xet-token": token}
