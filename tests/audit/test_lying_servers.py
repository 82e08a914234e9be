"""A server that truncates, lies or redirects in circles: the audit ends with an error, never with "nothing found"."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from publish.cli.group import main
from publish.hub.endpoint import RetryPolicy
from publish.rehearsal.server import RehearsalHub
from tests.audit.suites import Planted, publish_suite
from tests.servers import QuietServer

STEPS = (1, 2, 3, 4)
Change = Callable[[dict[str, Any]], None]  # of an answer: status, headers, body


class Between(QuietServer):
    """A proxy in front of a Hub that changes its answers for chosen paths."""

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.client = httpx2.Client(trust_env=False)
        self.changes: list[tuple[str, Change]] = []
        self.pages: dict[str, bytes] = {}  # served by the proxy itself

    def server_close(self) -> None:
        super().server_close()
        self.client.close()


class _Handler(BaseHTTPRequestHandler):
    server: Between
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path in self.server.pages:
            self._send({"status": 200, "headers": {}, "body": self.server.pages[self.path]})
            return
        headers = {"range": value} if (value := self.headers.get("range")) else {}
        answer = self.server.client.get(self.server.upstream + self.path, headers=headers)
        forwarded = {
            name: value.replace(self.server.upstream, self.server.url)
            for name, value in answer.headers.items()
            if name not in ("content-length", "transfer-encoding", "content-encoding", "date", "connection")
        }
        reply: dict[str, Any] = {"status": answer.status_code, "headers": forwarded, "body": answer.content}
        for pattern, change in self.server.changes:
            if re.search(pattern, self.path):
                change(reply)
        self._send(reply)

    def _send(self, reply: dict[str, Any]) -> None:
        self.send_response(reply["status"])
        for name, value in reply["headers"].items():
            self.send_header(name, value)
        self.send_header("content-length", str(reply.get("length", len(reply["body"]))))
        self.end_headers()
        self.wfile.write(reply["body"])
        self.close_connection = "length" in reply

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def suite(hub: RehearsalHub) -> Planted:
    return publish_suite(hub.root, "lab/a", STEPS)


@pytest.fixture
def proxy(hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    monkeypatch.setattr("publish.cli.audit.RETRIES", RetryPolicy(2, 0.01))
    with Between(hub.url) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        server.shutdown()
        thread.join()


def audit(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["audit", "lab/a", *arguments])
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def of_json(edit: Callable[[Any], Any]) -> Change:
    def change(reply: dict[str, Any]) -> None:
        if reply["status"] == 200:
            reply["body"] = json.dumps(edit(json.loads(reply["body"]))).encode()

    return change


def every_entry(edit: Callable[[dict[str, Any]], Any]) -> Change:
    return of_json(lambda entries: [edited for edited in map(edit, entries) if edited is not None])


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda entry: {key: value for key, value in entry.items() if key not in keys}


def lfs(edit: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda entry: {**entry, "lfs": edit(entry["lfs"])} if "lfs" in entry else entry


def one_digest(entry: dict[str, Any]) -> dict[str, Any]:
    """One digest for all weights, with a size that differs."""
    if "lfs" not in entry:
        return entry
    size = int(entry["lfs"]["oid"][:3], 16)
    return {**entry, "size": size, "lfs": {"oid": "0" * 64, "size": size}}


def body(edit: Callable[[bytes], bytes]) -> Change:
    return lambda reply: reply.update(body=edit(reply["body"]))


def redirect(reply: dict[str, Any]) -> None:
    reply.update(status=302, body=b"")
    reply["headers"]["location"] = "/api/models/lab/a/refs"


def announced(reply: dict[str, Any]) -> None:
    reply["length"] = len(reply["body"]) + 100


def first_weights(edit: Callable[[bytes], bytes]) -> Change:
    def change(reply: dict[str, Any]) -> None:
        if reply["status"] == 206:
            reply["body"] = edit(reply["body"])

    return change


REFS, TREE, CARD, DATA = r"/refs$", r"/tree/", r"/README\.md$", r"/(resolve|cdn|lfs)/.*|signature="
LIES: dict[str, tuple[str, Change]] = {
    "refs are not JSON": (REFS, body(lambda text: text[:-20])),
    "refs are cut short": (REFS, announced),
    "refs are binary": (REFS, body(lambda text: text.replace(b"step1", b"\xc3\x28"))),
    "refs are nested too deep": (REFS, body(lambda text: b"[" * 100_000)),
    "refs with endless numbers": (REFS, body(lambda text: b"[" + b"9" * 5000 + b"]")),
    "refs are a list": (REFS, of_json(lambda document: [document])),
    "refs without branches": (REFS, of_json(lambda document: {"tags": []})),
    "no branches at all": (REFS, of_json(lambda document: {**document, "branches": []})),
    "no step branches": (REFS, of_json(lambda d: {**d, "branches": [b for b in d["branches"] if b["name"] == "main"]})),
    "refs without commits": (REFS, of_json(lambda d: {**d, "branches": [{"name": b["name"]} for b in d["branches"]]})),
    "refs lead to themselves": (REFS, redirect),
    "a tree is not JSON": (TREE, body(lambda text: text[:-5])),
    "a tree is an object": (TREE, of_json(lambda entries: {"entries": entries})),
    "entries without digest": (TREE, every_entry(without("oid"))),
    "entries without size": (TREE, every_entry(without("size"))),
    "LFS without digest": (TREE, every_entry(lfs(lambda pointer: {"size": pointer["size"]}))),
    "LFS with half a digest": (TREE, every_entry(lfs(lambda pointer: {**pointer, "oid": pointer["oid"][:32]}))),
    "LFS with another size": (TREE, every_entry(lfs(lambda pointer: {**pointer, "size": pointer["size"] + 1}))),
    "negative sizes": (TREE, every_entry(lambda entry: {**entry, "size": -1})),
    "one digest of many sizes": (TREE, every_entry(one_digest)),
    "an entry twice": (TREE, of_json(lambda entries: [*entries, entries[-1]])),
    "a tree that leads to itself": (
        TREE,
        lambda reply: reply["headers"].update(link='<?cursor=x>; rel="next"'),
    ),
    "a file that is not there": (TREE, of_json(lambda e: [*e, {**e[0], "path": "model.safetensors.index.json"}])),
    "weights that are not there": (
        TREE,
        every_entry(lambda e: {**e, "path": "model-00001-of-00002.safetensors"} if "lfs" in e else e),
    ),
    "weights longer than they are": (
        TREE,
        every_entry(
            lambda e: lfs(lambda t: {**t, "size": t["size"] + 8})({**e, "size": e["size"] + 8} if "lfs" in e else e)
        ),
    ),
    "another card than listed": (CARD, first_weights(lambda text: text.upper())),
    "a header beyond any file": (DATA, first_weights(lambda data: b"\xff" * len(data))),
    "zeros": (DATA, first_weights(lambda data: b"\0" * len(data))),
    "ranges cut short": (DATA, first_weights(lambda data: data[:-1])),
    "an error page": (
        TREE,
        lambda reply: reply.update(status=200, body=b"<html>", headers={"content-type": "text/html"}),
    ),
    "a server error": (TREE, lambda reply: reply.update(status=500, body=b"oops")),
    "no access": (REFS, lambda reply: reply.update(status=401, body=b"{}")),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_an_error(name: str, suite: Planted, proxy: Between) -> None:
    proxy.changes = [LIES[name]]
    code, output = audit()
    assert (code, output.split(":")[0]) == (2, "Error"), output
    assert "fix:" in output


def test_optional_fields_may_be_absent(suite: Planted, proxy: Between) -> None:
    """The audit does not depend on fields that the Hub does not document."""
    proxy.changes = [
        (REFS, of_json(lambda document: {"branches": document["branches"]})),
        (TREE, every_entry(lfs(lambda pointer: {"oid": pointer["oid"]}))),
        (r".", lambda reply: [reply["headers"].pop(name, None) for name in ("etag", "ratelimit", "ratelimit-policy")]),
    ]
    code, output = audit("--schedule", "1,2,3,4")
    assert code == 0, output


def test_a_tree_of_many_pages(suite: Planted, proxy: Between) -> None:
    """Another server may use smaller pages; all of them are read."""

    def split(reply: dict[str, Any]) -> None:
        entries = json.loads(reply["body"])
        number = len(proxy.pages)
        proxy.pages[f"/rest/{number}"] = json.dumps(entries[1:]).encode()
        reply["body"] = json.dumps(entries[:1]).encode()
        reply["headers"]["link"] = f'</rest/{number}>; rel="next", </first>; rel="first"'

    proxy.changes = [(TREE, split)]
    assert audit()[0] == 0
    assert len(proxy.pages) == 5
    suite.put("step2", {"README.md": b"no metadata"})
    proxy.pages.clear()
    assert "card-metadata" in audit()[1]


def test_a_lie_is_not_cached(suite: Planted, proxy: Between, tmp_path: Path) -> None:
    proxy.changes = [LIES["another card than listed"]]
    assert audit()[0] == 2
    proxy.changes = []
    assert audit()[0] == 0
