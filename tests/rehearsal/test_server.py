"""The server: where it listens, how it stops, what survives a kill, and how much memory it needs."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pygit2
import pytest
from huggingface_hub import HfApi

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.routes import ROUTES, match
from publish.rehearsal.server import HANDLERS, RehearsalHub
from tests.rehearsal.conftest import PUBLISH

Start = Callable[..., Any]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org", "::"])
def test_it_serves_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(RehearsalError, match="not loopback"):
        RehearsalHub(tmp_path, host=host)


def test_a_port_in_use_is_one_clear_error(hub: RehearsalHub, tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="the port is in use"):
        RehearsalHub(tmp_path, port=hub.port).__enter__()
    arguments = ["--root", str(tmp_path), "--port", str(hub.port)]
    done = subprocess.run([*PUBLISH, "hub", *arguments], capture_output=True, text=True)
    assert (done.returncode, "the port is in use" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_two_servers_on_one_folder_are_refused(hub: RehearsalHub) -> None:
    with pytest.raises(RehearsalError, match="another rehearsal Hub serves this folder"):
        RehearsalHub(hub.root).__enter__()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RehearsalError, match="cannot use the folder"):
        RehearsalHub(tmp_path / "file").__enter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_url_and_stops_at_a_signal(start: Start, number: int) -> None:
    server = start()
    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\n", server.line)
    assert httpx2.get(server.url).status_code == 200
    assert server.end(number) == 0


def test_a_restarted_server_serves_the_same(tmp_path: Path) -> None:
    with RehearsalHub(tmp_path) as first:
        api = HfApi(endpoint=first.url, token="hf_alice")
        api.create_repo("alice/m", private=True)
        api.upload_file(path_or_fileobj=b"\0" * 3000, path_in_repo="w.safetensors", repo_id="alice/m")
        location = httpx2.get(
            f"{first.url}/alice/m/resolve/main/w.safetensors", headers={"authorization": "Bearer hf_alice"}
        ).headers["location"]
        before = api.repo_info("alice/m", files_metadata=True)
    with RehearsalHub(tmp_path) as second:
        after = HfApi(endpoint=second.url, token="hf_alice").repo_info("alice/m", files_metadata=True)
        assert (after.sha, after.private, after.siblings) == (before.sha, before.private, before.siblings)
        assert httpx2.get(second.url + location).content == b"\0" * 3000


def test_killed_at_any_moment_it_loses_nothing_that_it_confirmed(start: Start, tmp_path: Path) -> None:
    confirmed: dict[str, str] = {}
    branches = [f"b{number}" for number in range(4)]
    for turn in range(3):
        server = start()
        api = HfApi(endpoint=server.url, token="hf_alice")
        api.create_repo("alice/m", exist_ok=True)
        for branch, made in confirmed.items():
            history = [info.commit_id for info in api.list_repo_commits("alice/m", revision=branch)]
            assert made in history[:2]  # the newest may have landed without its answer
        before = dict(confirmed)
        threads = [
            threading.Thread(target=push_until_gone, args=(server.url, branch, confirmed)) for branch in branches
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while any(confirmed.get(branch) == before.get(branch) for branch in branches) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1 * turn)
        server.end(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert len(confirmed) == 4
    git = pygit2.Repository(str(tmp_path / "served" / "repos" / "models" / "alice" / "m.git"))
    for name in git.references:
        for commit in git.walk(git.references[name].target):
            assert all(git[entry.id].data for entry in commit.tree)


def push_until_gone(url: str, branch: str, confirmed: dict[str, str]) -> None:
    """Commit to a branch until the server is killed; what it confirmed last is noted."""
    with httpx2.Client(base_url=url, headers={"authorization": "Bearer hf_alice"}, timeout=5) as web:
        try:
            web.post(f"/api/models/alice/m/branch/{branch}")
            while True:
                file = f'{{"key":"file","value":{{"path":"a.txt","content":"{time.time_ns()}","encoding":"utf-8"}}}}\n'
                answer = web.post(f"/api/models/alice/m/commit/{branch}", content=HEADER + file)
                confirmed[branch] = str(answer.json()["commitOid"])
        except httpx2.TransportError:
            return


HEADER = '{"key":"header","value":{"summary":"m"}}\n'
SIZE = 160 << 20
BLOCK = b"\x5a" * (1 << 20)


def test_memory_does_not_grow_with_the_file(start: Start) -> None:
    server = start()
    digest = hashlib.sha256()
    for _ in range(SIZE >> 20):
        digest.update(BLOCK)
    oid = digest.hexdigest()
    with httpx2.Client(base_url=server.url, headers={"authorization": "Bearer hf_alice"}, timeout=30) as web:
        web.post("/api/repos/create", json={"name": "m", "organization": "alice"}).raise_for_status()
        before = peak(server.process.pid)
        body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": SIZE}]}
        actions = web.post("/alice/m.git/info/lfs/objects/batch", json=body).json()["objects"][0]["actions"]

        def blocks() -> Iterator[bytes]:
            for _ in range(SIZE >> 20):
                yield BLOCK

        headers = {"content-length": str(SIZE)}
        web.put(actions["upload"]["href"], content=blocks(), headers=headers).raise_for_status()
        line = f'{{"key":"lfsFile","value":{{"path":"w.bin","algo":"sha256","oid":"{oid}","size":{SIZE}}}}}\n'
        web.post("/api/models/alice/m/commit/main", content=HEADER + line).raise_for_status()
        received = 0
        with web.stream("GET", "/alice/m/resolve/main/w.bin", follow_redirects=True) as answer:
            for chunk in answer.iter_raw():
                received += len(chunk)
    assert received == SIZE
    assert peak(server.process.pid) - before < 40 << 20


def peak(pid: int) -> int:
    """The most memory that a process has held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def test_unknown_endpoints_are_clear_json(hub: RehearsalHub, web: httpx2.Client) -> None:
    for path in ("/api/nothing", "/api/models/a/b/discussions", "/_rehearsal/x", "/a/b/c"):
        answer = web.post(path)
        assert (answer.status_code, "not served" in answer.json()["error"]) == (404, True)
    wrong = web.post("/api/whoami-v2")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


def test_other_host_names_are_refused(hub: RehearsalHub) -> None:
    assert httpx2.get(f"{hub.url}/api/models", headers={"host": "evil.example"}).status_code == 421


def test_every_response_has_a_request_id(hub: RehearsalHub) -> None:
    answer = httpx2.get(f"{hub.url}/api/nothing", headers={"x-amzn-trace-id": "abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert httpx2.get(hub.url).headers["x-request-id"]


def test_every_route_has_its_handler() -> None:
    assert {route.name for route in ROUTES} == set(HANDLERS)
    assert match("GET", "/api/models/a/b/tree/refs%2Fpr%2F1/x%20y").params == {
        "kind": "models",
        "owner": "a",
        "name": "b",
        "rev": "refs/pr/1",
        "path": "x y",
    }


def test_stats_over_the_wire_and_in_process(hub: RehearsalHub, api: HfApi, repo: str, web: httpx2.Client) -> None:
    api.upload_file(path_or_fileobj=b"\0" * 3000, path_in_repo="w.safetensors", repo_id=repo)
    api.hf_hub_download(repo, "w.safetensors")
    document = web.get("/_rehearsal/stats").json()
    assert document == hub.stats().document()
    assert document["commits"] == {repo: {"main": 1}}
    assert document["bytes_out_by_repo"] == {repo: 3000}
    assert document["requests"]["commit"] == 1
    assert document["bytes_in"] > 3000
    assert web.post("/_rehearsal/stats/reset").status_code == 200
    assert web.get("/_rehearsal/stats").json()["requests"] == {}
