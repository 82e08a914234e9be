"""Uploads over Xet: a token names a folder, a client with hf_xet writes there, and a commit takes the files over.

Outside facts (docs/hub-protocol.md): a client with hf_xet never falls back to LFS, and accepts ``local:///folder`` as
the address of Xet storage. It writes xorbs and shards into that folder. A shard lists its files: Xet hash, segments,
and the sha256 by which a commit names them (Hugging Face's Xet specification, "MDB shard file format"). Each token
names a separate folder, because the client keeps a locked database in it. Downloads are plain HTTP.
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

from publish.rehearsal.errors import HttpError
from publish.rehearsal.http.context import RequestContext, json_response
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
    """The Xet uploads to the bare repository at ``repository``."""

    def __init__(self, repository: Path) -> None:
        self.root = repository / "xet"

    def new_folder(self) -> Path:
        folder = self.root / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def take(self, oid: str, into: LfsStore) -> int:
        """Make the file with this sha256 an LFS object if it was uploaded; the number of bytes that came in.

        A folder is removed once all its files are LFS objects.
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


def stored_size(context: RequestContext, repo: RepoId, oid: str) -> int | None:
    """Size of an LFS object of the repo, taken over from a Xet upload if need be; None when it was not uploaded."""
    lfs = context.hub.store.lfs(repo)
    with context.hub.store.lock(repo, "xet"):
        if taken := XetInbox(context.hub.store.directory(repo)).take(oid, lfs):
            context.hub.stats.add_received("xet", taken)
    return lfs.size(oid)


def token(context: RequestContext) -> Response:
    """Where a client may write. Read tokens are not issued, since downloads are plain HTTP."""
    repo = context.repo
    if context.params["access"] == "read":
        context.require_downloadable(repo)
        raise HttpError(404, "The rehearsal Hub does not send files by Xet; set HF_HUB_DISABLE_XET=1")
    context.require_write_token()
    context.require_readable(repo)
    folder = XetInbox(context.hub.store.directory(repo)).new_folder()
    expires = int(time.time()) + _LIFETIME  # the client's clock, not the injected one
    document = {"accessToken": "rehearsal", "exp": expires, "casUrl": f"local://{folder.absolute()}"}
    headers = {
        "X-Xet-Cas-Url": document["casUrl"],
        "X-Xet-Access-Token": document["accessToken"],
        "X-Xet-Token-Expiration": str(expires),
    }
    return json_response(document, headers={name: str(value) for name, value in headers.items()})


def _files_in(folder: Path) -> Iterator[_XetFile]:
    for shard in sorted(folder.glob("xet/xorbs/shards/*.mdb")):
        yield from _read_shard(shard.read_bytes(), folder)


def _read_shard(shard: bytes, folder: Path) -> Iterator[_XetFile]:
    """The files of a shard that have a sha256. A shard that is still being written gives those it has so far."""
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
    """Read the file from its xorbs into an LFS object, and check digest and size.

    The client may still have its database locked: this works on a copy, with the xorbs as hard links.
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
