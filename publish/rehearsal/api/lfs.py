"""LFS over HTTP: batch, basic and multipart uploads, verification, copies within this Hub.

Outside facts: git-lfs's batch API, and the Hub's multipart form of it (facts/hub-protocol.md).
"""

from __future__ import annotations

import math
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from publish.rehearsal.errors import Refusal, bad_request
from publish.rehearsal.http.request import Call, answer
from publish.rehearsal.names import PLURALS, SHA256, repo_id
from publish.rehearsal.storage.lfs import CHUNK, Incoming, LfsStore

_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def batch(call: Call) -> Response:
    """Where to put each object; nothing for those that are here already. ``download`` tells where to get them.

    Whoever may read the repo may upload to it, for a pull request: nothing shows until a commit names the object.
    """
    repo, asked = call.repo, call.json()
    download = asked.get("operation") == "download"
    if download:
        call.may_download(repo)
    else:
        call.writer()
        call.may_read(repo)
    transfers = asked.get("transfers") or ["basic"]
    stored = call.hub.store.lfs(repo)
    documents: list[dict[str, Any]] = []
    multipart = False
    for each in asked.get("objects") or ():
        oid, size = each.get("oid"), each.get("size")
        if not isinstance(oid, str) or not SHA256.fullmatch(oid) or not isinstance(size, int) or size < 0:
            error = {"code": 422, "message": "oid must be a sha256 and size a number"}
            documents.append({"oid": str(oid), "size": size if isinstance(size, int) else 0, "error": error})
            continue
        document: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        have = stored.size(oid)
        if download and have is None:
            document["error"] = {"code": 404, "message": "Object does not exist"}
        elif download:
            path = f"/cdn/{repo.kind}/{repo.full_name}/{oid}"
            href = f"{call.base}{path}?{call.hub.signer.query(path, commit='', file=oid)}"
            document["actions"] = {"download": {"href": href}}
        elif have != size:
            parts = "multipart" in transfers and size > call.hub.options.multipart_above
            multipart |= parts
            document["actions"] = _multipart(call, oid, size) if parts else _basic(call, oid, size)
        documents.append(document)
    transfer = "multipart" if multipart else "basic"
    return answer({"transfer": transfer, "objects": documents, "hash_algo": "sha256"}, headers=_JSON)


def _href(call: Call, oid: str, size: int, tail: str = "") -> str:
    path = f"/_lfs/{call.repo.kind}/{call.repo.full_name}/{oid}{tail}"
    return f"{call.base}{path}?{call.hub.signer.query(path, size=str(size))}"


def _basic(call: Call, oid: str, size: int) -> dict[str, Any]:
    return {"upload": {"href": _href(call, oid, size)}, "verify": {"href": _href(call, oid, size, "/verify")}}


def _multipart(call: Call, oid: str, size: int) -> dict[str, Any]:
    step = call.hub.options.part_size
    header = {"chunk_size": str(step)}
    for number in range(1, math.ceil(size / step) + 1):
        header[f"{number:05d}"] = _href(call, oid, size, f"/part/{number}")
    upload = {"href": _href(call, oid, size, "/complete"), "header": header}
    return {"upload": upload, "verify": {"href": _href(call, oid, size, "/verify")}}


def _signed_size(call: Call) -> int:
    """The size that the signed location was made for; the signature is the right to upload."""
    return int(call.hub.signer.check(call.request.url.path, call.query)["size"])


async def upload(call: Call) -> Response:
    stored, size = await run_in_threadpool(_upload_target, call)
    incoming = await _receive(call, stored, size)
    await run_in_threadpool(stored.accept, incoming, call.params["oid"], size)
    return answer({})


async def part(call: Call) -> Response:
    stored, _ = await run_in_threadpool(_upload_target, call)
    incoming = await _receive(call, stored, call.hub.options.part_size)
    etag = await run_in_threadpool(stored.accept_part, incoming, call.params["oid"], int(call.params["part"]))
    return answer({}, headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> Response:
    stored, size = _upload_target(call)
    parts = call.json().get("parts")
    try:
        etags = {int(each["partNumber"]): str(each["etag"]) for each in parts or ()}
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request("A part is {partNumber, etag}") from error
    if stored.size(call.params["oid"]) != size:  # repeated after a lost answer: it is done already
        stored.complete(call.params["oid"], size, etags)
    return answer({})


def verify(call: Call) -> Response:
    call.writer()
    call.may_read(call.repo)
    size = call.hub.store.lfs(call.repo).size(call.params["oid"])
    if size is None or size != call.json().get("size"):
        raise Refusal(404, "The object is not here, or has another size")
    return answer({})


def _upload_target(call: Call) -> tuple[LfsStore, int]:
    size = _signed_size(call)
    call.hub.store.settings(call.repo)
    return call.hub.store.lfs(call.repo), size


async def _receive(call: Call, stored: LfsStore, most: int) -> Incoming:
    """Take the body in chunks. What came in is thrown away when the client goes, or sends more than announced."""
    incoming = await run_in_threadpool(stored.incoming)
    buffer = bytearray()
    got = 0
    try:
        async for chunk in call.request.stream():
            buffer += chunk
            got += len(chunk)
            if got > most:
                raise bad_request(f"More than the {most} bytes that were announced")
            if len(buffer) >= CHUNK:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(incoming.write, bytes(buffer))
    except BaseException:
        incoming.discard()
        raise
    return incoming


def duplicate(call: Call) -> Response:
    """Objects of one repo made available to another, no byte moved."""
    source = call.repo
    call.may_download(source)
    asked = call.json()
    target_asked = asked.get("target")
    if not isinstance(target_asked, dict) or target_asked.get("type") not in PLURALS:
        raise bad_request("The target is {type, name}")
    owner, _, name = str(target_asked.get("name", "")).partition("/")
    target = repo_id(PLURALS[target_asked["type"]], owner, name)
    call.may_write(target)
    have, into = call.hub.store.lfs(source), call.hub.store.lfs(target)
    failed = []
    for each in asked.get("files") or ():
        oid = str(each.get("sha256", ""))
        if not SHA256.fullmatch(oid) or have.size(oid) is None:
            failed.append({**each, "error": "not found"})
        elif into.size(oid) is None:
            into.adopt(have.path(oid), oid)
    return answer({"failed": failed})


HANDLERS = {
    "lfs-batch": batch,
    "lfs-upload": upload,
    "lfs-part": part,
    "lfs-complete": complete,
    "lfs-verify": verify,
    "lfs-duplicate": duplicate,
}
