from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from publish.errors import HubError, StorageError
from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.failures import Endpoint, Refused, Unavailable
from publish.hub.rate_limits import seconds_to_commit
from publish.hub.repository import Base, find_base
from publish.hub.transaction import Published, publish_branch
from publish.interrupt import Interrupted
from tests.clock import ManualClock
from tests.hub.smallhub import Fault, Reply, SmallHub, as_json, error

REPO = "alice/m"
CARD = b"---\nlicense: apache-2.0\n---\n# a model\n"
WEIGHTS = bytes(range(256)) * 64
COMMIT_429 = (
    "You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in about 1 hour."
)
HTML = Reply(200, b"<html>gateway</html>", {"content-type": "text/html"})


@pytest.fixture
def files(tmp_path: Path) -> list[BranchFile]:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(WEIGHTS)
    return [
        BranchFile.of_bytes("README.md", CARD),
        BranchFile.of_bytes("config.json", b"{}\n"),
        BranchFile("model.safetensors", weights, len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()),
    ]


def right(hub: SmallHub, branch: str, files: list[BranchFile], commits: int = 1) -> None:
    """The branch holds exactly these files, and so many commits of its own."""
    wanted = {f.path: f.sha256 if f.path.endswith(".safetensors") else f.git_sha1() for f in files}
    assert hub.files(branch) == wanted
    assert hub.depth(branch) == commits


def publish(
    client: Client, hub: SmallHub, files: list[BranchFile], branch: str = "step1", tip: str | None = None
) -> Published:
    return publish_branch(client, Base(REPO, hub.first), branch, files, "step 1", tip=tip)


def test_seven_requests_with_lfs(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    client.validated_cards.add(hashlib.sha256(b"license: apache-2.0").hexdigest())
    outcome = publish(client, hub, files)
    assert hub.calls == ["create-branch", "preupload", "batch", "put", "verify", "commit", "tree"]
    assert outcome == Published("step1", hub.branches["step1"], committed=True)
    right(hub, "step1", files)


def test_four_requests_without_lfs_and_one_validation_a_front_matter(
    client: Client, hub: SmallHub, files: list[BranchFile]
) -> None:
    publish(client, hub, files[:2])
    assert hub.calls == ["validate-yaml", "create-branch", "preupload", "commit", "tree"]
    hub.calls.clear()
    publish(client, hub, [BranchFile.of_bytes("README.md", CARD + b"other text\n")], "step2")
    assert hub.calls == ["create-branch", "preupload", "commit", "tree"]


def test_again_is_skipped_with_one_request(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    first = publish(client, hub, files)
    hub.calls.clear()
    again = publish(client, hub, files, tip=first.commit)
    assert again == Published("step1", first.commit, committed=False)
    assert hub.calls == ["tree"]
    hub.calls.clear()
    assert publish(client, hub, files) == again  # without looking first
    assert hub.calls == ["create-branch", "commits", "tree"]
    right(hub, "step1", files)


def test_what_the_branch_held_is_removed_and_reported(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    tip = hub.push("step1", {"pytorch_model.bin": b"old", "config.json": b"old", "a/b.txt": b"x"})
    outcome = publish(client, hub, files, tip=tip)
    assert outcome.committed
    assert outcome.removed == ("a/b.txt", "pytorch_model.bin")
    right(hub, "step1", files, commits=2)


def test_a_branch_does_not_inherit_from_main(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.push("main", {"final.bin": b"the last step"})
    base = find_base(client, REPO)
    assert base == Base(REPO, hub.first)
    publish_branch(client, base, "step1", files, "step 1")
    right(hub, "step1", files)


def test_a_first_commit_with_files_is_cleaned(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.commits[hub.first].files["LICENSE"] = (b"x", "0" * 40, 1)
    outcome = publish_branch(client, find_base(client, REPO), "step1", files, "step 1")
    assert outcome.committed
    assert outcome.removed == ("LICENSE",)
    right(hub, "step1", files)


def test_weights_are_not_hashed_again(
    client: Client, hub: SmallHub, files: list[BranchFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*_: object) -> bytes:
        raise AssertionError("hashed again")

    monkeypatch.setattr("huggingface_hub.lfs.sha_fileobj", hashed)
    publish(client, hub, files)
    right(hub, "step1", files)


PASSING = {
    "429 told": Reply(429, b"", {"retry-after": "60"}),
    "429 limit": Reply(429, b"", {"ratelimit": '"api";r=0;t=99'}),
    "429 bare": Reply(429, b""),
    "429 commits": error(429, COMMIT_429),
    "500": error(500, "Internal Error"),
    "502": Reply(502, b"<html>bad gateway</html>", {"content-type": "text/html"}),
    "503": error(503, "busy"),
    "504": error(504, "Gateway timeout"),
    "html": HTML,
    "dropped": None,
}
CALLS = ["validate-yaml", "create-branch", "preupload", "batch", "put", "verify", "commit", "tree"]


CAMPAIGN = [
    (fault, call, after)
    for fault in PASSING
    for call in CALLS
    for after in (False, True)
    if not (after and fault.startswith("429"))  # not acted on
    if (call, fault) != ("put", "html")  # a store's answer has no body that counts
]


@pytest.mark.parametrize(("fault", "call", "after"), CAMPAIGN)
def test_a_passing_fault_at_any_call(
    fault: str, call: str, after: bool, client: Client, hub: SmallHub, files: list[BranchFile]
) -> None:
    hub.faults = [Fault(call, PASSING[fault], after)]
    outcome = publish(client, hub, files)
    assert outcome.commit == hub.branches["step1"]
    right(hub, "step1", files)
    assert hub.faults[0].times == 0
    assert hub.calls.count("commit") == (2 if call == "commit" and not after else 1)
    assert outcome.committed


# verify: once the bytes are there, the next try's batch does not ask for it any more
@pytest.mark.parametrize("call", [c for c in CALLS if c not in ("commit", "verify")])
def test_a_fault_that_stays_ends_with_an_error_and_can_be_resumed(
    call: str, client: Client, hub: SmallHub, files: list[BranchFile]
) -> None:
    hub.faults = [Fault(call, error(503, "busy"), times=10**6)]
    with pytest.raises(Unavailable, match="busy"):
        publish(client, hub, files)
    hub.faults = []
    publish(client, hub, files, tip=hub.branches.get("step1"))
    right(hub, "step1", files)


def test_a_commit_that_never_gets_through(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.faults = [Fault("commit", error(504, "Gateway timeout"), times=10**6)]
    with pytest.raises(Unavailable, match="did not get through"):
        publish(client, hub, files)
    assert hub.branches["step1"] == hub.first
    assert hub.calls.count("commit") == client.patience.tries


def test_a_504_that_is_applied_only_after_we_looked(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    late: list[bytes] = []
    original = hub.do_commit

    def slow(rev: str, body: bytes, auth: str, path: str) -> Reply:
        if not late:
            late.append(body)
            return error(504, "Gateway timeout")
        original(rev, late[0], auth, path)  # the first is applied now
        return original(rev, body, auth, path)

    hub.do_commit = slow  # type: ignore[method-assign]
    outcome = publish(client, hub, files)
    assert outcome.committed
    right(hub, "step1", files)


def test_the_commit_quota_text_is_waited_for_and_shared(
    client: Client, hub: SmallHub, files: list[BranchFile], clock: ManualClock
) -> None:
    hub.faults = [Fault("commit", error(429, COMMIT_429))]
    start = clock.now()
    publish(client, hub, files)
    assert 3600 <= clock.now() - start <= 3700
    right(hub, "step1", files)


@pytest.mark.parametrize(("status", "code"), [(401, ""), (403, ""), (404, "RepoNotFound")])
@pytest.mark.parametrize("call", ["create-branch", "preupload", "commit", "tree"])
def test_refusals_end_at_once(
    call: str, status: int, code: str, client: Client, hub: SmallHub, files: list[BranchFile]
) -> None:
    hub.faults = [Fault(call, error(status, "No.", code), times=10**6)]
    with pytest.raises(Refused) as caught:
        publish(client, hub, files)
    assert caught.value.status == status
    assert "req-1" in caught.value.where
    assert hub.calls.count(call) == 1


def test_somebody_elses_commit_is_named_and_kept(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.faults = [Fault("commit", error(500, ""), then=lambda: hub.push("step1", {"x": b"theirs"}) and None)]
    with pytest.raises(HubError, match="changed by bob") as caught:
        publish(client, hub, files)
    assert hub.branches["step1"] in caught.value.what
    assert "x" in hub.files("step1")


def test_a_tip_that_moved_since_it_was_looked_at_is_not_overwritten(
    client: Client, hub: SmallHub, files: list[BranchFile]
) -> None:
    old = hub.push("step1", {"x": b"old"})
    hub.push("step1", {"x": b"newer"}, author="carol")
    with pytest.raises(HubError, match="changed by carol"):
        publish(client, hub, files, tip=old)
    with pytest.raises(HubError, match="changed by carol"):
        publish(client, hub, files)
    assert hub.calls.count("commit") == 1


def test_two_publishers_at_once(client_of: Callable[[str], Client], hub: SmallHub, files: list[BranchFile]) -> None:
    clients = [client_of("alice"), client_of("bob")]
    outcomes: list[Published] = []
    barrier = threading.Barrier(2)

    def run(client: Client) -> None:
        for step in range(8):
            barrier.wait(10)
            outcomes.append(publish(client, hub, files, f"step{step}"))

    threads = [threading.Thread(target=run, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 16
    for step in range(8):
        right(hub, f"step{step}", files)


def test_a_branch_that_reads_back_otherwise_is_an_error(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.faults = [Fault("tree", as_json([]), times=3)]
    with pytest.raises(HubError, match=r"read back, is not what was sent: .* is missing"):
        publish(client, hub, files)


def test_a_tree_that_lags_is_read_again(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    hub.faults = [Fault("tree", as_json([]))]
    publish(client, hub, files)
    right(hub, "step1", files)


def test_an_invalid_card_ends_before_anything(client: Client, hub: SmallHub) -> None:
    with pytest.raises(HubError, match="license"):
        publish(client, hub, [BranchFile.of_bytes("README.md", b"---\nlicense: bad\n---\n")])
    assert hub.calls == ["validate-yaml"]


def test_local_files_are_looked_at_first(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    path = files[2].content
    assert isinstance(path, Path)
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(StorageError, match="16383 bytes, had 16384"):
        publish(client, hub, files)
    path.unlink()
    with pytest.raises(StorageError, match="gone"):
        publish(client, hub, files)
    assert hub.calls == []


def test_a_path_named_twice(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    with pytest.raises(HubError, match="twice"):
        publish(client, hub, [*files, files[0]])


def test_a_release_under_the_commit_quota(
    client: Client, hub: SmallHub, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.per_hour = (128, clock.now)
    start = clock.now()
    done = threading.Semaphore(4)
    steps = [f"step{step}" for step in range(156)]

    def run(branch: str) -> None:
        with done:
            publish(client, hub, [BranchFile.of_bytes("publish.json", branch.encode())], branch)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, steps))
    assert hub.rejected == 0
    assert hub.calls.count("commit") == 156
    assert clock.now() - start == pytest.approx(seconds_to_commit(156), rel=0.05)
    assert all(hub.depth(branch) == 1 for branch in steps)


def test_several_lfs_files_with_a_fault_in_one_thread(client: Client, hub: SmallHub, files: list[BranchFile]) -> None:
    shards = [BranchFile.of_bytes(f"model-{i}.safetensors", bytes([i]) * 2000) for i in range(4)]
    hub.faults = [Fault("put", error(503, "SlowDown"), times=2), Fault("put", None)]
    publish(client, hub, [*files, *shards])
    right(hub, "step1", [*files, *shards])


def test_an_interrupt_leaves_the_branch_untouched_or_complete(
    hub: SmallHub, files: list[BranchFile], tmp_path: Path, clock: ManualClock
) -> None:
    for call in CALLS:
        event = threading.Event()
        client = Client(Endpoint(hub.url, "hf_alice"), interrupt=event, clock=clock, quota_dir=tmp_path / "quota")
        hub.faults = [Fault(call, error(503, ""), times=99, then=event.set)]
        with pytest.raises(Interrupted):
            publish(client, hub, files, f"at-{call}")
        hub.faults = []
        assert hub.branches.get(f"at-{call}") in (None, hub.first) or hub.depth(f"at-{call}") == 1


def test_the_token_is_nowhere(
    client: Client, hub: SmallHub, files: list[BranchFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publish(client, hub, files)
    assert "hf_alice" not in caplog.text
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert all(b"hf_alice" not in file.read_bytes() for file in written)
