"""A suite that this tool published, audited against the records of its release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from publish.release_file import Release, parse_release
from tests.audit.conftest import MANY, Audit, kinds
from tests.audit.suites import Planted
from tests.release.releases import FEW, TARGET, few, run_release

EXPECT = "expect:\n  - {equal: [0, 1], because: the learning rate is 0 on the first iteration}\n"


@pytest.fixture
def published(samples: Path, tmp_path: Path, hub: RehearsalHub) -> Planted:
    client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=tmp_path / "quota", commits_per_hour=MANY)
    outcome = run_release(few(samples, tmp_path), client, tmp_path, verify_logits="off")
    assert (outcome.published, outcome.main.status) == (FEW, "published")
    return Planted(hub.root, TARGET)


@pytest.fixture
def release() -> Release:
    return parse_release(f"source: run\ntarget: {TARGET}\n{EXPECT}", "release.yaml")


def test_what_we_publish_is_clean_with_and_without_the_release(
    published: Planted, audit: Audit, release: Release
) -> None:
    report = audit(TARGET)
    assert report.ok, report.findings
    assert report.repos[0].schedule == "listed in checkpoints.json on main"
    assert report.repos[0].notes == ("step0 and step1 have the same weights: as declared",)
    assert audit(TARGET, release=release).ok
    undeclared = parse_release(f"source: run\ntarget: {TARGET}\n", "release.yaml")
    assert audit(TARGET, release=undeclared).ok  # main's own checkpoints.json declares it


def test_one_defect_is_one_finding_although_records_and_cards_contradict_it_too(
    published: Planted, audit: Audit, release: Release
) -> None:
    held = {branch: published.read(branch) for branch in ("step1", "step2", "step512")}
    published.put("step2", {"model.safetensors": held["step512"]["model.safetensors"]})
    published.put("step1", {"model.safetensors": held["step1"]["model.safetensors"][:-64]})
    assert kinds(audit(TARGET)) == [("duplicate-weights", (2, 512)), ("size-mismatch", (1,))]
    published.put("step2", held["step2"])
    published.put("step1", held["step1"])
    moved = audit(TARGET, release=release)
    assert kinds(moved) == [("not-as-recorded", (1,)), ("not-as-recorded", (2,))]
    assert all("by mallory" in found.detail and "checkpoints.json" in found.detail for found in moved.findings)


def test_changes_that_only_the_records_reveal(published: Planted, audit: Audit, release: Release) -> None:
    card = published.read("step2")["README.md"]
    published.put("step2", {"README.md": card.replace(b"Learning rate", b"Lerning rate")})
    config = published.read("step0")["generation_config.json"]
    published.put("step0", {"generation_config.json": config.replace(b"true", b"null")})  # of the same length
    published.put("step512", {"tokenizer.json": b"{}", "extra.txt": b"mine"})
    published.put("main", {"tokenizer.json": b"{}", "extra.txt": b"mine"})
    report = audit(TARGET, release=release)
    assert kinds(report) == [
        ("inherited-files", (512,)),
        ("not-as-recorded", ()),
        ("not-as-recorded", (0,)),
        ("not-as-recorded", (2,)),
        ("not-as-recorded", (512,)),
    ]
    by_step = {found.steps: found.detail for found in report.findings if found.kind == "not-as-recorded"}
    assert "README.md is not the file that publish.json records" in by_step[2,]
    assert "tokenizer.json" in by_step[512,]
    assert by_step[()].startswith("main: tokenizer.json is not")
    assert all("mallory" in detail for steps, detail in by_step.items() if steps)


def test_pythia_108_unknown_weights_of_the_right_shapes(published: Planted, audit: Audit, release: Release) -> None:
    """The finding names the commit and its author."""
    weights = bytearray(published.read("step2")["model.safetensors"])
    weights[-100:] = bytes(100)
    commit = published.put("step2", {"model.safetensors": bytes(weights)})
    (finding,) = audit(TARGET, release=release).findings
    assert (finding.kind, finding.steps) == ("not-as-recorded", (2,))
    assert f"commit {commit[:12]} by mallory" in finding.detail
    assert [found.kind for found in audit(TARGET).findings] == ["not-as-recorded"]


def test_a_card_of_another_step_or_in_lfs_is_one_finding(published: Planted, audit: Audit, release: Release) -> None:
    published.put("step2", {"README.md": published.read("step1")["README.md"]})
    published.put("step0", {"README.md": published.read("step0")["README.md"]}, lfs=("README.md",))
    assert kinds(audit(TARGET, release=release)) == [("card-snippet", (2,)), ("readme-in-lfs", (0,))]


def test_a_branch_that_is_a_copy_of_another(published: Planted, audit: Audit) -> None:
    published.put("step2", published.read("step512"))
    assert ("duplicate-weights", (2, 512)) in kinds(audit(TARGET))


def test_a_card_that_states_other_digests(published: Planted, audit: Audit) -> None:
    main = published.read("main")
    manifests = [record["manifest"] for record in json.loads(main["checkpoints.json"])["checkpoints"]]
    files = next(manifest["files"] for manifest in manifests if manifest["step"] == 2)
    digest = next(file["sha256"] for file in files if file["path"] == "model.safetensors")
    stale = main["README.md"].replace(digest[:8].encode(), b"0" * 8)
    published.put("main", {"README.md": stale})
    assert kinds(audit(TARGET)) == [("card-stale", (2,))]


def test_steps_that_are_declared_equal_and_differ(published: Planted, audit: Audit) -> None:
    text = f"source: run\ntarget: {TARGET}\n{EXPECT}  - {{equal: [2, 512], because: so it is not}}\n"
    wrong = parse_release(text, "release.yaml")
    assert kinds(audit(TARGET, release=wrong)) == [("not-as-recorded", (2, 512))]


def test_a_list_of_checkpoints_that_cannot_be_read_is_an_error(published: Planted, audit: Audit) -> None:
    from publish.errors import HubError

    published.put("main", {"checkpoints.json": b'{"repo": 1}'})
    with pytest.raises(HubError, match="repo must be str, got int"):
        audit(TARGET)


def test_a_branch_created_from_main_inherits_its_files(
    published: Planted, audit: Audit, hub: RehearsalHub, tmp_path: Path
) -> None:
    """How it happens: a branch is created at ``main``, and the upload that should follow fails or is partial."""
    api = HfApi(endpoint=hub.url, token="hf_alice")
    weights = published.read("step2")["model.safetensors"]
    published.delete("step2")
    api.create_branch(TARGET, branch="step2")
    assert kinds(audit(TARGET)) == [("duplicate-weights", (2, 512)), ("inherited-files", (2,))]
    published.put("step2", {"model.safetensors": weights})
    (finding, *others) = audit(TARGET).findings
    assert finding.kind == "inherited-files"
    inherited = {item.path for item in finding.evidence if not item.path.startswith("plots/")}
    assert inherited == {"README.md", "checkpoints.json", "publish.json"}
    assert others == []
