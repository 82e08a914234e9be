"""A Hub in a dictionary: one repo's branches, commits and LFS, with a fault before or after any call.

What the rehearsal Hub does really, this does barely, so that a fault can be put at an exact place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from publish.hub.reads import git_blob_sha1
from tests.servers import QuietServer

ATTRIBUTES = b"*.safetensors lfs\n"


@dataclass
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """At call `call`, its `nth` time on: `reply` (None: drop the connection), before or after acting."""

    call: str
    reply: Reply | None
    after: bool = False
    times: int = 1
    then: Callable[[], None] | None = None  # something else happens at this moment


@dataclass
class Commit:
    id: str
    parent: str | None
    files: dict[str, tuple[bytes | None, str, int]]  # content (None: LFS), digest, size
    title: str
    author: str


def as_json(document: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(document).encode(), {"content-type": "application/json", **named})


def error(status: int, message: str, code: str = "") -> Reply:
    extra = {"x_error_code": code} if code else {}
    return as_json({"error": message}, status, x_error_message=message, x_request_id="req-1", **extra)


class SmallHub:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.lfs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.faults: list[Fault] = []
        self.per_hour: tuple[int, Callable[[], float]] | None = None  # commits, by this clock
        self.stamps: list[float] = []
        self.rejected = 0
        self.branches["main"] = self.add(
            {".gitattributes": (ATTRIBUTES, git_blob_sha1(ATTRIBUTES), len(ATTRIBUTES))}, None, "initial commit"
        )
        self.first = self.branches["main"]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = 1 << 16  # head and body in one segment

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                reply = outer.handle(self.command, self.path, body, self.headers.get("authorization", ""))
                if reply is None:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for key, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *args: Any) -> None:
                return

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add(
        self,
        files: dict[str, tuple[bytes | None, str, int]],
        parent: str | None,
        title: str,
        author: str = "alice",
    ) -> str:
        seed = json.dumps([parent, title, author, sorted((k, v[1], v[2]) for k, v in files.items())])
        sha = hashlib.sha1(seed.encode() + str(len(self.commits)).encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, files, title, author)
        return sha

    def push(self, branch: str, files: dict[str, bytes], author: str = "bob", onto: str | None = None) -> str:
        """Somebody commits these files to a branch."""
        entries = {path: (content, git_blob_sha1(content), len(content)) for path, content in files.items()}
        parent = onto or self.branches.get(branch, self.first)
        kept = {".gitattributes": self.commits[self.first].files[".gitattributes"]}
        self.branches[branch] = self.add(kept | entries, parent, "their commit", author)
        return self.branches[branch]

    def files(self, branch: str) -> dict[str, str]:
        found = self.commits[self.branches[branch]].files
        return {path: digest for path, (_, digest, _) in found.items() if path != ".gitattributes"}

    def depth(self, branch: str) -> int:
        """Commits on the branch above the repo's first."""
        count, at = 0, self.branches[branch]
        while at != self.first:
            parent = self.commits[at].parent
            assert parent is not None
            count, at = count + 1, parent
        return count

    def handle(self, method: str, path: str, body: bytes, auth: str) -> Reply | None:
        with self.lock:
            parts = urlsplit(path)
            call = self.name(method, parts.path)
            self.calls.append(call)
            fault = next((f for f in self.faults if f.call == call and f.times > 0), None)
            if fault is not None:
                fault.times -= 1
            if fault is not None and fault.then is not None:
                fault.then()
            if fault is None or fault.after:
                reply = self.act(call, parts.path, parse_qs(parts.query), body, auth)
            return reply if fault is None else fault.reply

    @staticmethod
    def name(method: str, path: str) -> str:
        pieces = path.strip("/").split("/")
        if pieces[0] == "api" and pieces[1] == "models":
            return "create-branch" if pieces[4] == "branch" else pieces[4]
        if path.endswith("/objects/batch"):
            return "batch"
        if pieces[0] in ("put", "verify"):
            return pieces[0]
        if "resolve" in pieces:
            return "resolve"
        return {"repos": "create-repo"}.get(pieces[1], pieces[1])

    def act(self, call: str, path: str, query: dict[str, list[str]], body: bytes, auth: str) -> Reply:
        rev = unquote(path.strip("/").split("/")[-1])
        handler: Callable[..., Reply] = getattr(self, "do_" + call.replace("-", "_"))
        return handler(rev, body, auth, path)

    def at(self, rev: str) -> Commit | None:
        return self.commits.get(self.branches.get(rev, rev))

    def do_refs(self, *_: Any) -> Reply:
        refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in self.branches.items()]
        return as_json({"branches": refs, "converts": [], "tags": []})

    def do_create_branch(self, rev: str, body: bytes, *_: Any) -> Reply:
        if rev in self.branches:
            return error(409, f"Reference refs/heads/{rev} already exists")
        self.branches[rev] = json.loads(body).get("startingPoint") or self.branches["main"]
        return as_json({})

    def do_commits(self, rev: str, *_: Any) -> Reply:
        found, at = [], self.at(rev)
        if at is None:
            return error(404, "Invalid rev id", "RevisionNotFound")
        while at is not None:
            date = "2026-01-01T00:00:00.000Z"
            authors = [{"user": at.author}]
            found.append({"id": at.id, "title": at.title, "message": "", "authors": authors, "date": date})
            at = self.commits.get(at.parent or "")
        return as_json(found)

    def do_tree(self, rev: str, *_: Any) -> Reply:
        commit = self.at(rev)
        if commit is None:
            return error(404, "Invalid rev id", "RevisionNotFound")
        entries = []
        for path, (content, digest, size) in sorted(commit.files.items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": digest}
            if content is None:
                entry |= {"oid": "0" * 40, "lfs": {"oid": digest, "size": size, "pointerSize": 130}}
            entries.append(entry)
        return as_json(entries)

    def do_preupload(self, rev: str, body: bytes, *_: Any) -> Reply:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            commit = self.at(rev)
            have = commit.files.get(file["path"]) if commit else None
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(entry | ({"oid": have[1]} if have else {}))
        return as_json({"files": files})

    def do_batch(self, rev: str, body: bytes, *_: Any) -> Reply:
        objects = []
        for item in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.url}/put/{item['oid']}"},
                "verify": {"href": f"{self.url}/verify/x"},
            }
            objects.append(item | ({} if item["oid"] in self.lfs else {"actions": actions}))
        return as_json({"transfer": "basic", "objects": objects})

    def do_put(self, rev: str, body: bytes, auth: str, path: str) -> Reply:
        assert not auth, "the token must not go to storage"
        assert hashlib.sha256(body).hexdigest() == rev
        self.lfs[rev] = body
        return Reply(200, b"")

    def do_verify(self, rev: str, body: bytes, *_: Any) -> Reply:
        return as_json({}) if json.loads(body)["oid"] in self.lfs else error(404, "no such object")

    def do_commit(self, rev: str, body: bytes, auth: str, path: str) -> Reply:
        if self.per_hour is not None:
            limit, now = self.per_hour
            if len([at for at in self.stamps if at > now() - 3600]) >= limit:
                self.rejected += 1
                return error(429, f"You have exceeded the rate limit for repository commits ({limit} per hour).")
            self.stamps.append(now())
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        tip = self.branches.get(rev)
        if tip is None:
            return error(404, "Invalid rev id", "RevisionNotFound")
        if header.get("parentCommit", tip) != tip:
            return error(412, "The branch was updated since you opened this page. Please refresh and try again.")
        files = dict(self.commits[tip].files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
                files[value["path"]] = (content, git_blob_sha1(content), len(content))
            elif line["key"] == "lfsFile":
                files[value["path"]] = (None, value["oid"], len(self.lfs[value["oid"]]))
            else:
                del files[value["path"]]
        user = auth.removeprefix("Bearer hf_")
        self.branches[rev] = self.add(files, tip, header["summary"], user)
        return as_json({"success": True, "commitOid": self.branches[rev], "commitUrl": f"{self.url}/alice/m/commit/x"})

    def do_validate_yaml(self, rev: str, body: bytes, *_: Any) -> Reply:
        if "bad" in json.loads(body)["content"]:
            return as_json({"errors": [{"message": '"license" must be one of'}], "warnings": []}, 400)
        return as_json({"errors": [], "warnings": []})

    def do_whoami_v2(self, rev: str, body: bytes, auth: str, path: str) -> Reply:
        name = auth.removeprefix("Bearer hf_")
        if name == "nobody":
            return error(401, "Invalid username or password.")
        token = {"displayName": "t", "role": "read" if name == "reader" else "write"}
        orgs = [{"name": "lab"}]
        return as_json({"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": token}})

    def do_create_repo(self, *_: Any) -> Reply:
        return as_json({"url": f"{self.url}/alice/m", "error": "You already created this model repo"}, 409)

    def do_resolve(self, rev: str, body: bytes, auth: str, path: str) -> Reply:
        commit_id, name = unquote(path.split("/resolve/")[1]).split("/", 1)
        commit = self.at(commit_id)
        assert commit is not None
        found = commit.files.get(name)
        if found is None or found[0] is None:
            return error(404, "Entry not found", "EntryNotFound")
        return Reply(200, found[0], {"x-repo-commit": commit.id, "content-type": "text/plain"})
