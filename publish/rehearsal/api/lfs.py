"""Uploads over LFS: the batch request, basic and multipart uploads, and verification.

Outside facts: git-lfs's batch API, and the Hub's own form of multipart uploads (docs/hub-protocol.md). Downloads do not
go through the batch request; they are redirected by ``resolve``.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from publish.rehearsal.errors import HttpError, bad_request
from publish.rehearsal.http.context import RequestContext, json_response
from publish.rehearsal.names import SHA256
from publish.rehearsal.storage.lfs import CHUNK, Incoming, LfsStore

_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def batch(context: RequestContext) -> Response:
    """Where to upload each object; no actions for objects that the repo has.

    A user who may read the repo may upload to it, for a pull request: an object is invisible until a commit names it.
    """
    repo, options = context.repo, context.json()
    context.require_write_token()
    context.require_readable(repo)
    if options.get("operation") != "upload":
        raise bad_request("The batch request is served for uploads only")
    stored = context.hub.store.lfs(repo)
    multipart_allowed = "multipart" in (options.get("transfers") or ["basic"])
    documents: list[dict[str, Any]] = []
    multipart = False
    for item in options.get("objects") or ():
        oid, size = item.get("oid"), item.get("size")
        if not isinstance(oid, str) or not SHA256.fullmatch(oid) or not isinstance(size, int) or size < 0:
            error = {"code": 422, "message": "oid must be a sha256 and size a number"}
            documents.append({"oid": str(oid), "size": size if isinstance(size, int) else 0, "error": error})
            continue
        document: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if stored.size(oid) != size:
            in_parts = multipart_allowed and size > context.hub.multipart_above
            multipart |= in_parts
            upload = _multipart_upload(context, oid, size) if in_parts else {"href": _url(context, oid, size)}
            document["actions"] = {"upload": upload, "verify": {"href": _url(context, oid, size, "/verify")}}
        documents.append(document)
    transfer = "multipart" if multipart else "basic"
    return json_response({"transfer": transfer, "objects": documents, "hash_algo": "sha256"}, headers=_JSON)


def _url(context: RequestContext, oid: str, size: int, tail: str = "") -> str:
    path = f"/_lfs/{context.repo.kind}/{context.repo.full_name}/{oid}{tail}"
    return f"{context.base_url}{path}?{context.hub.signer.query(path, size=str(size))}"


def _multipart_upload(context: RequestContext, oid: str, size: int) -> dict[str, Any]:
    part_size = context.hub.part_size
    header = {"chunk_size": str(part_size)}
    for number in range(1, math.ceil(size / part_size) + 1):
        header[f"{number:05d}"] = _url(context, oid, size, f"/part/{number}")
    return {"href": _url(context, oid, size, "/complete"), "header": header}


async def upload(context: RequestContext) -> Response:
    stored, size = await run_in_threadpool(_upload_target, context)
    incoming = await _receive(context, stored, size)
    await run_in_threadpool(stored.accept, incoming, context.params["oid"], size)
    return json_response({})


async def upload_part(context: RequestContext) -> Response:
    stored, _ = await run_in_threadpool(_upload_target, context)
    incoming = await _receive(context, stored, context.hub.part_size)
    number = int(context.params["part"])
    etag = await run_in_threadpool(stored.accept_part, incoming, context.params["oid"], number)
    return json_response({}, headers={"ETag": f'"{etag}"'})


def complete(context: RequestContext) -> Response:
    stored, size = _upload_target(context)
    parts = context.json().get("parts")
    try:
        etags = {int(part["partNumber"]): str(part["etag"]) for part in parts or ()}
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request("A part must be {partNumber, etag}") from error
    if stored.size(context.params["oid"]) != size:  # else a client repeats the request after a lost response
        stored.complete(context.params["oid"], size, etags)
    return json_response({})


def verify(context: RequestContext) -> Response:
    context.require_write_token()
    context.require_readable(context.repo)
    size = context.hub.store.lfs(context.repo).size(context.params["oid"])
    if size is None or size != context.json().get("size"):
        raise HttpError(404, "The object does not exist, or has another size")
    return json_response({})


def _upload_target(context: RequestContext) -> tuple[LfsStore, int]:
    """The objects of the repo, and the size that the URL was signed for. The signature is the right to upload."""
    size = int(context.hub.signer.check(context.request.url.path, context.query)["size"])
    context.hub.store.settings(context.repo)
    return context.hub.store.lfs(context.repo), size


async def _receive(context: RequestContext, stored: LfsStore, most: int) -> Incoming:
    """Receive the body in chunks. It is discarded when the client disconnects, or sends more than ``most`` bytes."""
    incoming = await run_in_threadpool(stored.incoming)
    buffer = bytearray()
    received = 0
    try:
        async for chunk in context.request.stream():
            buffer += chunk
            received += len(chunk)
            if received > most:
                raise bad_request(f"More than the {most} bytes that were announced")
            if len(buffer) >= CHUNK:
                await run_in_threadpool(incoming.write, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(incoming.write, bytes(buffer))
    except BaseException:
        incoming.discard()
        raise
    return incoming


HANDLERS = {
    "lfs-batch": batch,
    "lfs-upload": upload,
    "lfs-part": upload_part,
    "lfs-complete": complete,
    "lfs-verify": verify,
}
