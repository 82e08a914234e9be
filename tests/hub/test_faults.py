"""The fault matrix: every fault at every call that publishing a branch makes, with the real client.

Whole releases under faults are played by tests/release/campaign.py.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from publish.errors import HubError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.downloads import RemoteFile
from publish.hub.endpoint import Endpoint, RetryPolicy, Timeouts
from publish.hub.reads import latest_commits, list_branches, list_tree
from publish.hub.repository import Base, ensure_repo, find_base
from publish.hub.transaction import publish_branch
from publish.rehearsal.server import RehearsalHub
from tests.clock import ManualClock

REPO = "alice/faults"
CONTENT = random.Random(1).randbytes(200_000)
QUOTA = {
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
    "429-128-an-hour": {"status": 429, "body": QUOTA},
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
ONCE = [(fault, call) for fault in FAULTS for call in CALLS if (call, fault) not in NOT_A_FAULT]
ALWAYS = [
    (fault, call)
    for fault in FAULTS
    for call in CALLS
    if fault == "503" or (call in ("create-branch", "commit") and not fault.startswith("429") and fault != "stalled")
]


@pytest.fixture
def client(hub: RehearsalHub, clock: ManualClock, tmp_path: Path, request: pytest.FixtureRequest) -> Client:
    """Impatient: a short timeout where an answer is to be lost, few tries."""
    lost = any(word in request.node.name for word in ("stalled", "applied"))
    return Client(
        Endpoint(hub.url, "hf_alice"),
        clock=clock,
        quota_dir=tmp_path,
        timeouts=Timeouts(connect=1, read=0.3 if lost else 5, write=5),
        retry_policy=RetryPolicy(tries=4),
    )


@pytest.fixture
def base(hub: RehearsalHub, client: Client) -> Base:
    hub.inject(None)
    ensure_repo(client, REPO)
    return find_base(client, REPO)


def step_files(branch: str) -> list[BranchFile]:
    return [
        BranchFile.of_bytes("README.md", f"---\nlicense: mit\n---\n# {branch}\n".encode()),
        BranchFile.of_bytes("model.safetensors", branch.encode() + CONTENT),
    ]


def is_right(client: Client, base: Base, branch: str) -> None:
    """One commit on the branch, holding exactly the step's files."""
    history = latest_commits(client, REPO, branch)
    assert [commit.id for commit in history][1:] == [base.commit]
    found = {entry.path: entry.lfs_sha256 or entry.oid for entry in list_tree(client, REPO, branch)}
    del found[".gitattributes"]
    readme, weights = step_files(branch)
    assert found == {"README.md": readme.git_sha1(), "model.safetensors": weights.sha256}


@pytest.mark.parametrize(("fault", "call"), ONCE)
def test_a_fault_once(fault: str, call: str, hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = f"{call}-{fault}"
    hub.inject([{"route": call, "nth": 1, **FAULTS[fault]}])
    hub.reset_stats()
    outcome = publish_branch(client, base, branch, step_files(branch), "a step")
    hub.inject(None)
    assert outcome.committed
    assert hub.stats().commits[REPO][branch] == 1
    is_right(client, base, branch)


@pytest.mark.parametrize(("fault", "call"), ALWAYS)
def test_a_fault_always_and_a_rerun(fault: str, call: str, hub: RehearsalHub, client: Client, base: Base) -> None:
    branch = f"always-{call}-{fault}"
    hub.inject([{"route": call, **FAULTS[fault]}])
    with contextlib.suppress(HubError):  # a clear error; or complete, because what was applied was found
        publish_branch(client, base, branch, step_files(branch), "a step")
    hub.inject(None)
    publish_branch(client, base, branch, step_files(branch), "a step", tip=list_branches(client, REPO).get(branch))
    is_right(client, base, branch)


def test_one_of_several_uploads_fails(hub: RehearsalHub, client: Client, base: Base) -> None:
    shards = [BranchFile.of_bytes(f"model-{i}.safetensors", bytes([i]) * 2000) for i in range(4)]
    hub.inject(
        [
            {"route": "lfs-upload", "nth": 2, "count": 2, "status": 503},
            {"route": "lfs-upload", "nth": 4, "drop": "before"},
        ]
    )
    publish_branch(client, base, "shards", shards, "a step")
    found = {entry.path: entry.lfs_sha256 for entry in list_tree(client, REPO, "shards") if entry.lfs_sha256}
    assert found == {shard.path: shard.sha256 for shard in shards}


def test_an_expired_upload_location_is_requested_again(hub: RehearsalHub, client: Client, base: Base) -> None:
    expired = {"status": 403, "body": {"error": "Request has expired"}}
    hub.inject([{"route": "lfs-upload", "nth": 1, "count": 2, **expired}])
    hub.reset_stats()
    assert publish_branch(client, base, "expired", step_files("expired"), "a step").committed
    assert hub.stats().requests["lfs-batch"] >= 3
    is_right(client, base, "expired")


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
    tip = list_branches(client, REPO).get("ranges")
    commit = publish_branch(client, base, "ranges", step_files("ranges"), "a step", tip=tip).commit
    whole = b"ranges" + CONTENT
    remote = RemoteFile(client, REPO, commit, "model.safetensors", len(whole))
    hub.inject([{**rule, "nth": 1, "count": 2}])
    for offset, length in ((0, 50_000), (50_000, 100_000), (len(whole) - 5, 5)):
        assert remote.read(offset, length) == whole[offset : offset + length]
