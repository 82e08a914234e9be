"""Every fault at every call that publishing a step makes, on the rehearsal Hub: complete and right, or resumable."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from publish.errors import HubError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile
from publish.hub.failures import Endpoint, Patience, Timeouts
from publish.hub.reads import latest_commits, list_branches, list_tree
from publish.hub.repository import Base, ensure_repo, find_base
from publish.hub.transaction import publish_branch
from publish.rehearsal.server import RehearsalHub
from tests.clock import ManualClock

REPO = "alice/campaign"
CONTENT = random.Random(1).randbytes(200_000)
TEXT = {
    "error": "You have exceeded the rate limit for repository commits (128 per hour). "
    "You can retry this action in about 1 hour."
}
CALLS = (
    "validate-yaml",
    "create-branch",
    "preupload",
    "lfs-batch",
    "lfs-upload",
    "lfs-verify",
    "commit",
    "tree",
)
FAULTS: dict[str, dict[str, Any]] = {
    "429-retry-after": {"status": 429, "headers": {"Retry-After": "30"}},
    "429-ratelimit": {"status": 429, "headers": {"RateLimit": '"api";r=0;t=60'}},
    "429-bare": {"status": 429, "body": {"error": "Too many requests"}},
    "429-128-an-hour": {"status": 429, "body": TEXT},
    "500": {"status": 500},
    "502": {"status": 502, "body": "<html>bad gateway</html>"},
    "503": {"status": 503},
    "504": {"status": 504},
    "504-applied": {"status": 504, "after": True},
    "500-applied": {"status": 500, "after": True},
    "html-200": {"status": 200, "body": "<html>maintenance</html>"},
    "html-200-applied": {"status": 200, "body": "<html>maintenance</html>", "after": True},
    "reset": {"drop": "before"},
    "reset-applied": {"drop": "after"},
    "stalled": {"delay": 0.6},
}
# a store's 200 has no body that counts: an HTML page there is as good as any other
NOT_A_FAULT = {("lfs-upload", "html-200-applied"), ("lfs-upload", "html-200")}
CAMPAIGN = [(fault, call) for fault in FAULTS for call in CALLS if (call, fault) not in NOT_A_FAULT]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path_factory.mktemp("campaign")) as server:
        yield server


@pytest.fixture
def client(hub: RehearsalHub, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Impatient: short timeouts where an answer is to be lost, few tries."""
    lost = any(word in request.node.name for word in ("stalled", "applied"))
    yield Client(
        Endpoint(hub.url, "hf_alice"),
        clock=ManualClock(),
        quota_dir=tmp_path,
        timeouts=Timeouts(connect=1, read=0.3 if lost else 5, write=5),
        patience=Patience(tries=4),
    )
    hub.inject(None)


@pytest.fixture(scope="module")
def base(hub: RehearsalHub, tmp_path_factory: pytest.TempPathFactory) -> Base:
    client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=tmp_path_factory.mktemp("quota"))
    ensure_repo(client, REPO)
    return find_base(client, REPO)


def step_files(branch: str) -> list[BranchFile]:
    return [
        BranchFile.of_bytes("README.md", f"---\nlicense: mit\n---\n# {branch}\n".encode()),
        BranchFile.of_bytes("model.safetensors", branch.encode() + CONTENT),
    ]


def right(client: Client, base: Base, branch: str) -> None:
    """One commit on the branch, holding exactly the step's files."""
    history = latest_commits(client, REPO, branch)
    assert [each.id for each in history][1:] == [base.commit]
    found = {entry.path: entry.lfs_sha256 or entry.oid for entry in list_tree(client, REPO, branch)}
    del found[".gitattributes"]
    readme, weights = step_files(branch)
    assert found == {"README.md": readme.git_sha1(), "model.safetensors": weights.sha256}


@pytest.mark.parametrize(("fault", "call"), CAMPAIGN)
def test_once(fault: str, call: str, hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = f"{call}-{fault}"
    hub.inject([{"route": call, "nth": 1, **FAULTS[fault]}])
    hub.reset_stats()
    outcome = publish_branch(client, base, branch, step_files(branch), "a step")
    hub.inject(None)
    assert outcome.committed
    assert hub.stats().commits[REPO][branch] == 1
    right(client, base, branch)


EVER = [
    (fault, call)
    for fault in FAULTS
    for call in ("create-branch", "commit", "tree")
    if not fault.startswith("429") and fault != "stalled"
    if not (call == "tree" and fault.endswith("applied"))  # reading changes nothing
]


@pytest.mark.parametrize(("fault", "call"), EVER)
def test_for_ever_then_again(fault: str, call: str, hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = f"ever-{call}-{fault}"
    hub.inject([{"route": call, **FAULTS[fault]}])
    with contextlib.suppress(HubError):  # stopped with a clear error, or complete: what was applied was found
        publish_branch(client, base, branch, step_files(branch), "a step")
    hub.inject(None)
    publish_branch(client, base, branch, step_files(branch), "a step", tip=list_branches(client, REPO).get(branch))
    right(client, base, branch)


@pytest.mark.parametrize(
    "rule",
    [
        {"route": "cdn", "truncate": 1000},
        {"route": "cdn", "truncate": 0},
        {"route": "cdn", "drop": "before"},
        {"route": "cdn", "status": 503},
        {"route": "cdn", "status": 403},
        {"route": "resolve", "status": 502},
        {"route": "resolve", "status": 429, "headers": {"Retry-After": "5"}},
        {"route": "resolve", "drop": "after"},
    ],
    ids=str,
)
def test_range_reads(rule: dict[str, Any], hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = "ranges"
    commit = publish_branch(
        client, base, branch, step_files(branch), "a step", tip=list_branches(client, REPO).get(branch)
    ).commit
    whole = branch.encode() + CONTENT
    remote = RemoteFile(client, REPO, commit, "model.safetensors", len(whole))
    hub.inject([{**rule, "nth": 1, "count": 2}])
    for offset, length in ((0, 50_000), (50_000, 100_000), (len(whole) - 5, 5)):
        assert remote.read(offset, length) == whole[offset : offset + length]


def test_a_commit_quota_on_the_server_that_we_do_not_know_of(tmp_path: Path) -> None:
    clock = ManualClock()
    rules = [{"commits_per_hour": 3}]
    with RehearsalHub(tmp_path / "hub", faults=rules, clock=clock.now) as hub:
        client = Client(Endpoint(hub.url, "hf_alice"), clock=clock, quota_dir=tmp_path / "quota")
        ensure_repo(client, REPO)
        base = find_base(client, REPO)
        start = clock.now()
        for step in range(8):
            publish_branch(client, base, f"step{step}", [BranchFile.of_bytes("x", b"%d" % step)], "a step")
        assert hub.stats().commits[REPO] == {f"step{step}": 1 for step in range(8)}
        assert 7200 <= clock.now() - start <= 7300


def test_a_commit_quota_that_we_know_of_is_never_hit(tmp_path: Path) -> None:
    clock = ManualClock()
    with RehearsalHub(tmp_path / "hub", faults=[{"commits_per_hour": 3}], clock=clock.now) as hub:
        endpoint = Endpoint(hub.url, "hf_alice")
        client = Client(endpoint, clock=clock, quota_dir=tmp_path / "quota", commits_per_hour=3)
        ensure_repo(client, REPO)
        base = find_base(client, REPO)
        for step in range(8):
            publish_branch(client, base, f"step{step}", [BranchFile.of_bytes("x", b"%d" % step)], "a step")
        assert hub.stats().requests["commit"] == 8


def test_a_location_to_upload_to_that_expired_is_asked_for_again(hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = "expired"
    hub.inject([{"route": "lfs-upload", "nth": 1, "count": 2, "status": 403, "body": {"error": "Request has expired"}}])
    hub.reset_stats()
    files = [
        BranchFile.of_bytes("model.safetensors", b"expired" + CONTENT),
        BranchFile.of_bytes("README.md", b"---\nlicense: mit\n---\n"),
    ]
    assert publish_branch(client, base, branch, files, "a step").committed
    assert hub.stats().requests["lfs-batch"] >= 3
