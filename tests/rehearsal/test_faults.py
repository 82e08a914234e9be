"""Faults: which requests they fire on, and what they do."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from publish.rehearsal.errors import RehearsalError
from publish.rehearsal.http.faults import Rule, load_rules, parse_rules
from publish.rehearsal.server import RehearsalHub
from tests.rehearsal.conftest import Commit

DATA = bytes(range(256)) * 2000


def test_the_nth_match_and_those_after_it() -> None:
    fired = lambda rule: [number for number in range(1, 13) if rule.fires(number)]  # noqa: E731
    assert fired(Rule("tree", nth=2)) == [2]
    assert fired(Rule("tree", nth=2, count=3)) == [2, 3, 4]
    assert fired(Rule("tree", count=2)) == [1, 2]
    assert fired(Rule("tree", every=5)) == [5, 10]
    assert fired(Rule("tree", every=5, count=1)) == [5]
    assert fired(Rule("tree")) == list(range(1, 13))


def test_routes_methods_and_patterns(hub: RehearsalHub, repo: str, web: httpx2.Client) -> None:
    rules: list[dict[str, Any]] = [
        {"route": "refs", "status": 503},
        {"route": "/resolve/.*attributes$", "method": "GET", "status": 502, "body": "<html>bad gateway</html>"},
    ]
    hub.inject(rules)
    assert web.get(f"/api/models/{repo}/refs").status_code == 503
    answer = web.get(f"/{repo}/resolve/main/.gitattributes")
    assert (answer.status_code, answer.text) == (502, "<html>bad gateway</html>")
    assert web.head(f"/{repo}/resolve/main/.gitattributes").status_code == 200
    assert {"ratelimit", "ratelimit-policy", "x-request-id"} <= set(answer.headers)


def test_a_refused_commit_does_nothing_and_an_answered_one_is_there(
    hub: RehearsalHub, api: HfApi, repo: str, commit: Commit
) -> None:
    hub.inject(
        [{"route": "commit", "nth": 1, "status": 500}, {"route": "commit", "nth": 2, "status": 504, "after": True}]
    )
    for expected in (1, 2):
        with pytest.raises(HfHubHTTPError):
            commit({"a.txt": b"1"})
        assert len(api.list_repo_commits(repo)) == expected
    assert hub.stats().commits == {repo: {"main": 1}}


BIG = b"x" * 3_000_000  # more than a connection buffers


def calls(web: httpx2.Client, repo: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Route -> a request of it, as a release makes them."""
    oid, size = hashlib.sha256(BIG).hexdigest(), len(BIG)
    batch = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}
    actions = web.post(f"/{repo}.git/info/lfs/objects/batch", json=batch).json()["objects"][0]["actions"]
    weights = web.get(f"/{repo}/resolve/main/w.safetensors", follow_redirects=False).headers["location"]
    line = {"key": "file", "value": {"path": "big.txt", "encoding": "utf-8", "content": BIG.decode()}}
    commit = json.dumps({"key": "header", "value": {"summary": "m"}}) + "\n" + json.dumps(line) + "\n"
    api = f"/api/models/{repo}"
    return {
        "whoami": ("GET", "/api/whoami-v2", {}),
        "create-repo": ("POST", "/api/repos/create", {"json": {"name": "other", "organization": "alice"}}),
        "validate-yaml": ("POST", "/api/validate-yaml", {"json": {"content": "---\nlicense: mit\n---\n"}}),
        "refs": ("GET", f"{api}/refs", {}),
        "tree": ("GET", f"{api}/tree/main", {}),
        "commits": ("GET", f"{api}/commits/main", {}),
        "create-branch": ("POST", f"{api}/branch/other", {"json": {}}),
        "preupload": ("POST", f"{api}/preupload/main", {"json": {"files": [{"path": "a", "sample": "", "size": 1}]}}),
        "lfs-batch": ("POST", f"/{repo}.git/info/lfs/objects/batch", {"json": batch}),
        "lfs-upload": ("PUT", actions["upload"]["href"], {"content": BIG}),
        "lfs-verify": ("POST", actions["verify"]["href"], {"json": {"oid": oid, "size": size}}),
        "commit": ("POST", f"{api}/commit/main", {"content": commit.encode()}),
        "resolve": ("GET", f"/{repo}/resolve/main/.gitattributes", {}),
        "cdn": ("GET", weights, {}),
    }


def test_after_answers_at_once_on_every_route_and_has_applied(
    hub: RehearsalHub, repo: str, api: HfApi, commit: Commit, web: httpx2.Client
) -> None:
    commit({"w.safetensors": DATA})
    for route, (method, url, body) in calls(web, repo).items():
        hub.inject([{"route": route, "status": 504, "after": True, "headers": {"Retry-After": "7"}}])
        began = time.monotonic()
        answer = web.request(method, url, **body)
        assert (answer.status_code, answer.headers["retry-after"]) == (504, "7"), route
        assert time.monotonic() - began < 1, route
    hub.inject(None)
    assert "other" in {branch.name for branch in api.list_repo_refs(repo).branches}
    assert "big.txt" in api.list_repo_files(repo)


def test_after_answers_where_the_hub_refuses_without_reading(hub: RehearsalHub, repo: str, web: httpx2.Client) -> None:
    hub.inject([{"route": "commit", "status": 504, "after": True}])
    began = time.monotonic()
    assert web.post(f"/api/models/{repo}/commit/none", content=BIG).status_code == 504
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("when", "commits"), [("before", 1), ("after", 2)])
def test_a_dropped_connection(
    hub: RehearsalHub, api: HfApi, repo: str, commit: Commit, when: str, commits: int
) -> None:
    hub.inject([{"route": "commit", "drop": when, "nth": 1}])
    with pytest.raises(httpx2.TransportError):
        commit({"a.txt": b"1"})
    assert len(api.list_repo_commits(repo)) == commits


def test_a_body_cut_short_is_announced_whole(hub: RehearsalHub, repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({"w.safetensors": DATA})
    hub.inject([{"route": "cdn", "truncate": 1000, "nth": 1}])
    url = f"/{repo}/resolve/main/w.safetensors"
    got = bytearray()

    def read() -> None:
        with web.stream("GET", url, follow_redirects=True) as answer:
            assert int(answer.headers["content-length"]) == len(DATA)
            for chunk in answer.iter_raw():
                got.extend(chunk)

    with pytest.raises(httpx2.RemoteProtocolError):
        read()
    assert bytes(got) == DATA[:1000]
    assert web.get(url, follow_redirects=True).content == DATA


def test_corrupt_bytes_have_the_right_length(hub: RehearsalHub, repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({"w.safetensors": DATA})
    hub.inject([{"route": "cdn", "corrupt": True}])
    got = web.get(f"/{repo}/resolve/main/w.safetensors", follow_redirects=True).content
    assert len(got) == len(DATA)
    assert 0 < sum(one != other for one, other in zip(got, DATA, strict=True)) < 10


@pytest.mark.parametrize("rule", [{"delay": 0.2}, {"throttle": len(DATA) * 5}])
def test_slowness(hub: RehearsalHub, repo: str, commit: Commit, web: httpx2.Client, rule: dict[str, Any]) -> None:
    commit({"w.safetensors": DATA})
    hub.inject([{"route": "cdn", **rule}])
    began = time.monotonic()
    assert web.get(f"/{repo}/resolve/main/w.safetensors", follow_redirects=True).content == DATA
    assert 0.2 <= time.monotonic() - began < 2


def test_headers_are_added_to_the_response(hub: RehearsalHub, repo: str, web: httpx2.Client) -> None:
    hub.inject([{"route": "refs", "headers": {"X-HF-Warning": "quota; slow down"}}])
    answer = web.get(f"/api/models/{repo}/refs")
    assert (answer.status_code, answer.headers["x-hf-warning"]) == (200, "quota; slow down")


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timed(tmp_path: Path) -> Any:
    clock = Clock()
    rules = [{"commits_per_hour": 2}]
    with RehearsalHub(tmp_path, faults=rules, clock=clock, api_quota=20, enforce_quota=True) as running:
        yield running, clock


def test_commits_an_hour_and_requests_a_window(timed: tuple[RehearsalHub, Clock]) -> None:
    hub, clock = timed
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo("alice/m")

    def push(number: int) -> None:
        api.upload_file(path_or_fileobj=b"%d" % number, path_in_repo="a.txt", repo_id="alice/m")

    for number in range(2):
        push(number)
        clock.now += 600
    with pytest.raises(HfHubHTTPError, match=r"repository commits \(2 per hour\).*about 1 hour") as caught:
        push(2)
    assert caught.value.response.status_code == 429
    assert '"api";r=' in caught.value.response.headers["ratelimit"]
    clock.now += 3600 - 1200 + 1
    push(3)  # the first of them left the window
    with pytest.raises(HfHubHTTPError, match="429"):
        push(4)
    with httpx2.Client(base_url=hub.url, headers={"authorization": "Bearer hf_alice"}) as web:
        clock.now += 301
        headers = web.get("/api/models/alice/m").headers
        assert headers["ratelimit"] == '"api";r=19;t=300'
        assert headers["ratelimit-policy"] == '"fixed window";"api";q=20;w=300'
        statuses = [web.get("/api/models/alice/m").status_code for _ in range(20)]
        assert statuses == [200] * 19 + [429]
        assert web.get("/alice/m/resolve/main/.gitattributes").status_code == 200  # downloads are counted apart
        assert httpx2.get(f"{hub.url}/api/models/alice/m").status_code == 200  # and so is every token
        clock.now += 300
        assert web.get("/api/models/alice/m").status_code == 200


def test_a_refused_commit_does_not_use_up_the_hour(hub: RehearsalHub, repo: str, commit: Commit) -> None:
    hub.inject([{"commits_per_hour": 1}])
    with pytest.raises(HfHubHTTPError):
        commit({"a.txt": b"1"}, branch="none")
    commit({"a.txt": b"1"})


@pytest.mark.parametrize("lost", [{"status": 504, "after": True}, {"drop": "after"}], ids=["504", "dropped"])
def test_what_counts_for_the_hour_is_what_was_committed_not_what_was_answered(
    hub: RehearsalHub, repo: str, commit: Commit, lost: dict[str, Any]
) -> None:
    hub.inject([{"commits_per_hour": 1}, {"route": "commit", "nth": 1, "count": 2, **lost}])
    with pytest.raises((HfHubHTTPError, httpx2.TransportError)):
        commit({"a.txt": b"1"}, branch="none")  # refused by the Hub: counts for nothing
    with pytest.raises((HfHubHTTPError, httpx2.TransportError)):
        commit({"a.txt": b"1"})  # applied
    with pytest.raises(HfHubHTTPError, match="429"):
        commit({"a.txt": b"2"})


def test_rules_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("- {route: commit, nth: 3, status: 504, after: true}\n- commits_per_hour: 128\n")
    (tmp_path / "f.json").write_text(json.dumps([{"route": "commit", "nth": 3, "status": 504, "after": True}]))
    rules = load_rules(tmp_path / "f.yaml")
    assert rules == (Rule("commit", nth=3, status=504, after=True), Rule("commit", commits_per_hour=128))
    assert load_rules(tmp_path / "f.json") == rules[:1]


WRONG: list[tuple[object, str]] = [
    ({"route": "commit"}, "expected a list of rules"),
    (["commit"], "expected a mapping, got 'commit'"),
    ([{"route": "comit"}], "route must be a regular expression or one of"),
    ([{"route": "(/"}], "a valid regular expression"),
    ([{"status": 500}], "the rule has no route"),
    ([{"route": "commit", "statsu": 500}], "unknown keys statsu"),
    ([{"route": "commit", "status": "500"}], "status must be .* got '500'"),
    ([{"route": "commit", "status": 99}], "a status from 200 to 599"),
    ([{"route": "commit", "drop": True}], "before or after"),
    ([{"route": "commit", "nth": 0}], "above 0"),
    ([{"route": "commit", "delay": -1}], "above 0"),
    ([{"route": "commit", "after": True}], "after needs a status"),
    ([{"route": "commit", "nth": 1, "every": 2}], "exclude each other"),
    ([{"route": "commit"}, {"route": "commit", "corrupt": 1}], "rule 2"),
]


@pytest.mark.parametrize(("document", "message"), WRONG)
def test_an_error_in_a_rule_is_reported(document: object, message: str) -> None:
    with pytest.raises(RehearsalError, match=message):
        parse_rules(document, "faults.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("- {route: [")
    for name, message in (("bad.yaml", "not valid YAML"), ("none.yaml", "cannot read the faults file")):
        with pytest.raises(RehearsalError, match=message):
            RehearsalHub(tmp_path, faults=tmp_path / name)


def test_the_command_takes_a_faults_file(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("- {route: whoami, status: 418}\n")
    server = start("--faults", str(tmp_path / "f.yaml"))
    assert httpx2.get(f"{server.url}/api/whoami-v2").status_code == 418
