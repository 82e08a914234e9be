"""A suite of 154 steps with the defects that real suites had: every one is found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publish.rehearsal.server import RehearsalHub
from publish.schedule import PYTHIA
from tests.audit.conftest import Audit, kinds
from tests.audit.suites import Planted, card, publish_suite, safetensors, sharded, tensors_at

REPO = "lab/pythia-tiny"


@pytest.fixture
def suite(hub: RehearsalHub) -> Planted:
    return publish_suite(hub.root, REPO, PYTHIA)


def test_a_clean_suite_has_no_finding_and_costs_little(suite: Planted, audit: Audit, hub: RehearsalHub) -> None:
    hub.reset_stats()
    report = audit(REPO)
    assert report.ok, report.findings
    assert report.branches == 155
    assert report.repos[0].schedule == "pythia, guessed from the branch names"
    assert [note.split(":")[0] for note in report.repos[0].notes] == ["step0 and step1 have the same weights"]
    counted = hub.stats()
    assert report.requests == sum(counted.requests.values()) < 700
    assert report.bytes_downloaded == counted.bytes_out
    assert report.seconds < 60
    headers = 153 * (len(suite.files["main"]["model.safetensors"]) - sum(t.nbytes for t in tensors_at(0).values()))
    assert (report.weight_bytes, counted.bytes_out_by_route["cdn"]) == (0, headers)
    again = audit(REPO)
    assert again.ok
    assert again.requests < 20


def test_pythia_205_duplicates_and_a_main_that_is_not_the_last_step(suite: Planted, audit: Audit) -> None:
    """76 of 154 branches have the weights of main, 10 more share others; main is not step143000."""
    first, second = PYTHIA[20:96], PYTHIA[100:110]
    suite.put("main", {"model.safetensors": safetensors(tensors_at(7, seed=9))})
    for step in first:
        suite.copy_weights("main", f"step{step}")
    for step in second[1:]:
        suite.copy_weights(f"step{second[0]}", f"step{step}")
    report = audit(REPO)
    assert kinds(report) == [
        ("duplicate-weights", first),
        ("duplicate-weights", second),
        ("main-not-final", (143_000,)),
    ]
    not_final = next(finding for finding in report.findings if finding.kind == "main-not-final")
    assert not_final.branches == ("main", "step143000")
    largest = next(finding for finding in report.findings if len(finding.steps) == 76)
    assert "and so has main" in largest.detail
    assert {(item.branch, item.sha256) for item in largest.evidence} == {
        (f"step{step}", largest.evidence[0].sha256) for step in first
    }
    assert report.requests < 700


def test_pythia_202_missing_steps(suite: Planted, audit: Audit) -> None:
    for step in (4, 15_000, 142_000):
        suite.delete(f"step{step}")
    assert kinds(audit(REPO)) == [("missing-step", (4, 15_000, 142_000))]


@pytest.mark.slow
def test_pythia_108_a_step_of_another_run(suite: Planted, audit: Audit, hub: RehearsalHub) -> None:
    """Digests reveal it only if the other run is audited too; sampling does without, at a stated number of bytes."""
    suite.put("step32000", {"model.safetensors": safetensors(tensors_at(32_000, seed=5))})
    assert audit(REPO).ok
    hub.reset_stats()
    report = audit(REPO, deep=(2, 32_000, 143_000))
    assert kinds(report) == [("not-as-recorded", (32_000,))]
    assert 0 < report.weight_bytes == hub.stats().bytes_out_by_route["cdn"]
    publish_suite(hub.root, "lab/other", (31_000, 32_000, 33_000), seed=5)
    assert kinds(audit(REPO, "lab/other")) == [("duplicate-weights", (32_000,))]


def test_every_small_defect_has_its_own_kind(suite: Planted, audit: Audit) -> None:
    config = json.loads(suite.files["step8"]["config.json"])
    weights = suite.files["step512"]["model.safetensors"]
    stale = suite.files["step2"]["README.md"].replace(b"One of 154", b"One of 143")
    suite.put("step512", {"model.safetensors": weights[:-100]})
    suite.put("step3000", {"model.safetensors": suite.files["step3000"]["model.safetensors"][:300]})
    suite.put("step8", {"config.json": json.dumps({**config, "num_hidden_layers": 6}).encode()})
    suite.put("step16", {"config.json": json.dumps({**config, "use_parallel_residual": False}).encode()})
    suite.put("step2", {"README.md": stale})
    suite.put("step4", {"README.md": suite.files["step5000"]["README.md"]})
    suite.put("step32", {"README.md": b"# no metadata\n" + suite.files["step32"]["README.md"].split(b"---\n")[2]})
    suite.put("step64", {"README.md": suite.files["step64"]["README.md"]}, lfs=("README.md",))
    suite.put("step128", {"plots/loss.png": b"\x89PNG", "checkpoints.json": b"{}"})
    suite.put("step999", suite.files["step1000"])
    suite.put("step-7", suite.files["step1000"])
    suite.put("step01", suite.files["step1000"])
    bins = {"pytorch_model.bin": b"PK" * 900}
    suite.put("step256", bins, drop=("model.safetensors",))
    report = audit(REPO)
    assert kinds(report) == [
        ("card-metadata", (32,)),
        ("card-snippet", (4,)),
        ("card-stale", (2,)),
        ("config-mismatch", (8,)),
        ("config-mismatch", (16,)),
        ("duplicate-weights", (7, 999, 1000)),
        ("inherited-files", (128,)),
        ("no-safetensors", (256,)),
        ("readme-in-lfs", (64,)),
        ("size-mismatch", (512,)),
        ("size-mismatch", (3000,)),
        ("unexpected-branch", ()),
        ("unexpected-branch", (7,)),
        ("unexpected-branch", (999,)),
    ]
    assert all(finding.evidence for finding in report.findings)


@pytest.mark.slow
def test_pythia_206_a_first_shard_of_the_final_model(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, REPO, PYTHIA, shards=3)
    shard = "model-00001-of-00003.safetensors"
    assert audit(REPO).ok
    for step in (50_000, 58_000):
        suite.put(f"step{step}", {shard: suite.files["step143000"][shard]})
    report = audit(REPO)
    assert kinds(report) == [("mixed-shards", (50_000, 58_000))]
    assert "of step143000" in report.findings[0].detail


def test_olmo_915_three_branches_share_all_six_shards(hub: RehearsalHub, audit: Audit) -> None:
    steps = tuple(range(1000, 20_000, 1000))
    suite = publish_suite(hub.root, "lab/olmo", steps, name="stage1-step{}-tokens5B", shards=6)
    assert audit("lab/olmo").ok
    for step in (5000, 6000):
        suite.copy_weights("stage1-step4000-tokens5B", f"stage1-step{step}-tokens5B")
    assert kinds(audit("lab/olmo")) == [("duplicate-weights", (4000, 5000, 6000))]


def test_a_later_stage_starts_where_an_earlier_one_ended(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, "lab/olmo", (1000, 2000, 3000), name="stage1-step{}-tokens5B")
    for ingredient in (1, 2):
        names = [f"stage2-ingredient{ingredient}-step{step}-tokens5B" for step in (0, 1000)]
        suite.put(names[0], {**suite.files["stage1-step3000-tokens5B"], "README.md": card("lab/olmo", names[0], 7)})
        other = safetensors(tensors_at(1000, seed=ingredient))
        suite.put(
            names[1], {**suite.files[names[0]], "model.safetensors": other, "README.md": card("lab/olmo", names[1], 7)}
        )
    for branch in ("stage1-step1000-tokens5B", "stage1-step2000-tokens5B", "stage1-step3000-tokens5B", "main"):
        suite.put(branch, {"README.md": card("lab/olmo", branch, 7)})
    report = audit("lab/olmo")
    assert report.ok, report.findings
    suite.copy_weights("stage2-ingredient1-step1000-tokens5B", "stage2-ingredient2-step1000-tokens5B")
    assert kinds(audit("lab/olmo")) == [("duplicate-weights", (1000,))]


def test_seeds_of_one_repo_may_not_share_weights(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, "lab/decide", (0, 1, 1000), name="step{}-seed-default")
    for step in (0, 1, 1000):
        name = f"step{step}-seed-small-aux-2"
        files = {**suite.files[f"step{step}-seed-default"], "README.md": card("lab/decide", name, 6)}
        suite.put(name, {**files, "model.safetensors": safetensors(tensors_at(step, seed=2))})
        suite.put(f"step{step}-seed-default", {"README.md": card("lab/decide", f"step{step}-seed-default", 6)})
    suite.put("main", {"README.md": card("lab/decide", "main", 6)})
    report = audit("lab/decide")
    assert report.ok, report.findings
    assert [note.split(" have")[0] for note in report.repos[0].notes] == [
        "step0-seed-default and step1-seed-default",
        "step0-seed-small-aux-2 and step1-seed-small-aux-2",
    ]
    suite.copy_weights("step0-seed-default", "step0-seed-small-aux-2")
    (finding,) = audit("lab/decide").findings
    assert (finding.kind, finding.steps) == ("duplicate-weights", (0, 1))
    assert finding.branches == ("step0-seed-default", "step1-seed-default", "step0-seed-small-aux-2")


def test_two_spellings_of_one_step_and_a_branch_that_is_not_a_step(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, "lab/olmo", (1000, 2000), name="stage1-step{}-tokens5B")
    suite.put("step2000-tokens5B", suite.files["stage1-step2000-tokens5B"])
    suite.put("it-SFT", {"model.safetensors": safetensors(tensors_at(5, seed=5))})
    report = audit("lab/olmo")
    (finding,) = (found for found in report.findings if found.kind == "unexpected-branch")
    assert (finding.branches, finding.steps) == (("stage1-step2000-tokens5B", "step2000-tokens5B"), (2000,))
    assert report.repos[0].notes == ("1 branch is not named like a step and not examined: it-SFT",)
    assert report.repos[0].names == {"stage1-step1000-tokens5B": 2, "step1000-tokens4B": 1}


def test_positions_counted_in_tokens(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, "lab/tokens", (240, 280, 320), name="{}b_tokens")
    report = audit("lab/tokens")
    assert (report.ok, report.repos[0].axis) == (True, "tokens"), report.findings
    suite.copy_weights("240b_tokens", "280b_tokens")
    (finding,) = audit("lab/tokens").findings
    assert (finding.kind, finding.branches) == ("duplicate-weights", ("240b_tokens", "280b_tokens"))


def test_an_index_that_does_not_match_its_shards(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, REPO, (1, 2, 3, 4, 5), shards=3)
    suite.put("step2", {}, drop=("model-00002-of-00003.safetensors",))
    other = sharded(tensors_at(3), 2)
    index = json.loads(suite.files["step3"]["model.safetensors.index.json"])
    places = json.loads(other["model.safetensors.index.json"])["weight_map"]
    wrong = {name: path.replace("of-00002", "of-00003") for name, path in places.items()}
    text = json.dumps({**index, "weight_map": {**index["weight_map"], **wrong}}).encode()
    suite.put("step3", {"model.safetensors.index.json": text})
    found = kinds(audit(REPO))
    assert ("size-mismatch", (2,)) in found
    assert ("mixed-shards", (3,)) in found
    assert len(found) == 2


def test_other_schedules_and_other_names(hub: RehearsalHub, audit: Audit) -> None:
    for repo, name in (("lab/a", "ckpt_{}"), ("lab/b", "step-{}"), ("lab/c", "global_step{}"), ("lab/d", "v{}-final")):
        suite = publish_suite(hub.root, repo, (1, 2, 3, 356), name=name)
        pattern = "v{step}-final" if repo == "lab/d" else None
        assert audit(repo, pattern=pattern, schedule=(1, 2, 3, 356)).ok
        suite.copy_weights(name.format(2), name.format(3))
        found = kinds(audit(repo, pattern=pattern, schedule=(1, 2, 3, 4, 356)))
        assert found == [("duplicate-weights", (2, 3)), ("missing-step", (4,))]


def test_a_bin_suite_is_audited_by_its_digests(hub: RehearsalHub, audit: Audit, tmp_path: Path) -> None:
    suite = Planted(hub.root, REPO)
    for step in range(1, 9):
        blob = bytes([step]) * 10_000
        suite.put(f"step{step}", {"pytorch_model.bin": blob[: 9000 if step == 4 else None], "config.json": b"{}"})
    suite.copy_weights("step8", "step3")
    suite.put("main", suite.files["step8"])
    found = kinds(audit(REPO))
    assert found == [
        ("card-metadata", ()),
        ("duplicate-weights", (3, 8)),
        ("no-safetensors", tuple(range(1, 9))),
        ("size-mismatch", (4,)),
    ]
