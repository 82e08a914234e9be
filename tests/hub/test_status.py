from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from publish.release.ledger import Ledger

from publish.hub.branch_files import BranchFile
from publish.hub.client import Client
from publish.hub.repository import Base
from publish.hub.transaction import publish_branch
from publish.records.checkpoints import CheckpointRecord, Checkpoints
from publish.records.files import FileRecord
from publish.records.manifest import ComparisonRecord, Manifest
from publish.release.state import Expected, Seen, judge, look
from tests.hub.smallhub import SmallHub
from tests.hub.test_manifest import example

REPO = "alice/m"


def manifest(step: int) -> Manifest:
    card = BranchFile.of_bytes("README.md", f"step {step}".encode())
    return replace(example(), step=step, branch=f"step{step}", files=(FileRecord("README.md", card.size, card.sha256),))


def expected(step: int) -> Expected:
    made = manifest(step)
    return Expected(step, made.branch, made.source.commit, made.plan)


def card_of(record: Manifest) -> str:
    """The card that the release asks for now: that of step 4 has changed."""
    return "0" * 64 if record.step == 4 else str(record.card)


def push(client: Client, hub: SmallHub, step: int) -> CheckpointRecord:
    made = manifest(step)
    files = [
        BranchFile.of_bytes("README.md", f"step {step}".encode()),
        BranchFile.of_bytes("publish.json", made.to_bytes()),
    ]
    outcome = publish_branch(client, Base(REPO, hub.first), made.branch, files, f"step {step}")
    return CheckpointRecord.of(made, outcome.commit)


@pytest.fixture
def released(client: Client, hub: SmallHub) -> list[int]:
    """Four steps and main, as a release leaves them."""
    records = tuple(push(client, hub, step) for step in (0, 1, 2, 4))
    hub.push("main", {"checkpoints.json": Checkpoints(REPO, records).to_bytes()}, author="alice")
    hub.calls.clear()
    return [0, 1, 2, 4]


def test_a_finished_release_costs_two_requests(client: Client, hub: SmallHub, released: list[int]) -> None:
    found = look(client, REPO, [expected(step) for step in released])
    assert {each.state for each in found} == {"published"}
    assert [each.commit for each in found] == [hub.branches[f"step{s}"] for s in released]
    assert hub.calls == ["refs", "resolve"]


def test_with_a_ledger_one(client: Client, hub: SmallHub, released: list[int], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    del hub.branches["main"]  # nothing but the branches to read from
    look(client, REPO, [expected(step) for step in released], ledger=ledger)
    assert sorted(hub.calls) == ["refs", *["resolve"] * 4, *["tree"] * 4]
    hub.calls.clear()
    again = look(client, REPO, [expected(step) for step in released], ledger=Ledger(tmp_path))
    assert {each.state for each in again} == {"published"}
    assert hub.calls == ["refs"]


@pytest.mark.parametrize("change", ["source_commit", "plan", "files", "wording"])
def test_the_ledgers_proof_ends_with_what_it_was_made_from(
    client: Client, hub: SmallHub, released: list[int], tmp_path: Path, change: str
) -> None:
    look(client, REPO, [expected(1)], ledger=Ledger(tmp_path))
    now = replace(expected(1), **{change: (("README.md", "0" * 64),) if change == "files" else "0" * 64})
    hub.calls.clear()
    state = look(client, REPO, [now], ledger=Ledger(tmp_path))[0].state
    assert state == ("published" if change == "wording" else "stale")
    assert hub.calls == ["refs", "resolve"]  # it was looked at again


def test_a_ledger_is_not_believed_where_the_branch_moved(
    client: Client, hub: SmallHub, released: list[int], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path)
    look(client, REPO, [expected(1)], ledger=ledger)
    hub.push("step1", {"publish.json": manifest(1).to_bytes(), "README.md": b"step 1", "model.safetensors": b"x"})
    assert look(client, REPO, [expected(1)], ledger=ledger)[0].reason == "files: model.safetensors is surplus"


def test_a_branch_that_moved_is_not_believed(client: Client, hub: SmallHub, released: list[int]) -> None:
    hub.push("step2", {"x": b"theirs"})
    states = {each.step: each for each in look(client, REPO, [expected(step) for step in released])}
    assert states[2].state == "foreign"
    assert "no publish.json" in states[2].reason
    assert states[1].state == "published"


def test_every_state(client: Client, hub: SmallHub, released: list[int]) -> None:
    hub.branches["step8"] = hub.first
    hub.push("step16", {"publish.json": b"{}"})
    hub.push("step32", {"publish.json": manifest(4).to_bytes()})
    wanted = [
        expected(0),
        replace(expected(1), source_commit="f" * 40),
        replace(expected(2), plan="0" * 64),
        expected(4),
        *(expected(step) for step in (8, 16, 32, 64)),
    ]
    found = look(client, REPO, wanted, card_of=card_of)
    assert [each.only_card for each in found] == [False] * 3 + [True] + [False] * 4
    assert [each.state for each in found] == [
        "published",
        "stale",
        "stale",
        "stale",
        "missing",
        "foreign",
        "foreign",
        "missing",
    ]
    assert [each.reason for each in found[1:]] == [
        f"source {'f' * 12}, published from {'c' * 12}",
        f"plan {'0' * 12}, published from {'e' * 12}",
        f"card {'0' * 12}, published {(manifest(4).card or '')[:12]}",
        "the branch is there, without a commit of its own",
        "its publish.json cannot be read: step is missing",
        "its publish.json is that of branch step4",
        "there is no such branch",
    ]


def test_somebodys_own_checkpoints_json_is_not_believed(client: Client, hub: SmallHub, released: list[int]) -> None:
    hub.push("main", {"checkpoints.json": b'["mine"]'})
    found = look(client, REPO, [expected(step) for step in released])
    assert {each.state for each in found} == {"published"}
    assert hub.calls.count("resolve") == 5


def test_judge_says_all_that_is_stale() -> None:
    seen = Seen("x", CheckpointRecord.of(manifest(1), "x"), ("config.json is missing",))
    status = judge(Expected(1, "step1", "a", "b", (("tokenizer.json", "c"),)), seen)
    assert status.reason == (
        f"source a, published from {'c' * 12}; plan b, published from {'e' * 12}; "
        "tokenizer.json c, published from none; files: config.json is missing"
    )
    assert (
        judge(Expected(1, "step1", None, None), Seen("x", CheckpointRecord.of(manifest(1), "x"))).state == "published"
    )
    assert judge(Expected(1, "step1", "a", "b"), Seen("x", CheckpointRecord.of(manifest(2), "x"))).state == "foreign"


def test_a_step_shows_exactly_the_comparisons_that_are_asked_for() -> None:
    shown = tuple(ComparisonRecord(f"a/b@{revision}", "", "") for revision in ("step0", "step0", "step1"))
    seen = Seen("x", CheckpointRecord.of(replace(manifest(1), comparisons=shown), "x"))
    wanted = Expected(1, "step1", None, None, comparisons=("a/b@step1", "a/b@step0", "a/b@step0"))
    assert judge(wanted, seen).state == "published"
    assert judge(replace(wanted, comparisons=None), seen).state == "published"
    other = judge(replace(wanted, comparisons=("a/b@step0", "a/b@step1", "c/d")), seen)
    said = "not compared with c/d; compared with a/b@step0, which the release does not ask for"
    assert (other.state, other.reason, other.only_card) == ("stale", said, False)
    assert len({replace(wanted, comparisons=each).proof for each in (None, (), ("a/b",), ("a/c",))}) == 4


DAMAGES = {
    "model.safetensors is missing": {"README.md": b"step 8"},
    "README.md has 3 bytes, not 6": {"README.md": b"you", "model.safetensors": b"12345"},
    "theirs.txt is surplus": {"README.md": b"step 8", "model.safetensors": b"12345", "theirs.txt": b"x"},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_manifest_alone_proves_nothing(client: Client, hub: SmallHub, damage: str) -> None:
    files = (*manifest(8).files, FileRecord("model.safetensors", 5, "f" * 64))
    record = replace(manifest(8), files=files)
    hub.push("step8", {**DAMAGES[damage], "publish.json": record.to_bytes()})
    status = look(client, REPO, [expected(8)])[0]
    assert (status.state, status.reason) == ("stale", f"files: {damage}")
