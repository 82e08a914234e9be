"""A repair publishes again what an audit found, and nothing else; the errata record it; then the audit is clean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi

from publish.cli.group import main
from publish.errors import HubError, PublishError
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint
from publish.rehearsal.server import RehearsalHub
from publish.release.cards import make_cards
from publish.release.proposal import propose
from publish.release.repair import read_repair
from tests.audit.conftest import MANY
from tests.audit.suites import Planted
from tests.release.releases import TARGET, few, run_release

OPTIONS = ("--verify-logits", "off", "--json")
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
LFS_README = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\nREADME.md filter=lfs diff=lfs merge=lfs -text\n"


class Published:
    """A released run that can be audited and repaired."""

    def __init__(self, samples: Path, folder: Path, hub: RehearsalHub) -> None:
        self.hub, self.folder = hub, folder
        self.client = Client(Endpoint(hub.url, "hf_alice"), quota_dir=folder / "quota", commits_per_hour=MANY)
        self.run = few(samples, folder, STEPS)
        assert not run_release(self.run, self.client, folder, verify_logits="off").failed
        self.plant = Planted(hub.root, TARGET)

    def audit(self) -> tuple[int, Path]:
        result = CliRunner().invoke(main, ["audit", TARGET, "--json"])
        path = self.folder / "audit.json"
        path.write_text(result.stdout)
        return result.exit_code, path

    def tips(self) -> Mapping[str, str]:
        api = HfApi(endpoint=self.hub.url, token=False)
        return {branch.name: branch.target_commit for branch in api.list_repo_refs(TARGET).branches}

    def repair(self, audit: Path) -> object:
        return run_release(self.run, self.client, self.folder, verify_logits="off", repair=read_repair(audit, TARGET))


@pytest.fixture
def published(samples: Path, tmp_path: Path, hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Published:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return Published(samples, tmp_path, hub)


def plant_everything(plant: Planted) -> None:
    held = {step: plant.read(f"step{step}") for step in STEPS}
    weights = "model.safetensors"
    plant.put("step2", {weights: held[512][weights]})
    plant.put("step4", {weights: held[4][weights][:-64]})
    plant.git.delete_ref("refs/heads/step8")
    config = json.loads(held[16]["config.json"])
    plant.put("step16", {"config.json": json.dumps({**config, "num_hidden_layers": 6}).encode()})
    plant.put("step32", {"README.md": held[16]["README.md"]})
    plant.put("step64", {".gitattributes": LFS_README, "README.md": held[64]["README.md"]}, lfs=("README.md",))
    plant.put("step128", {"checkpoints.json": b"{}", "loss.png": b"\x89PNG"})
    plant.put("step256", {"pytorch_model.bin": b"PK" * 500}, drop=(weights,))
    plant.put("step1000", {"README.md": b"---\nlanguage:\n---\nnothing\n"})
    plant.put("main", {weights: held[0][weights]})


def test_every_defect_is_repaired_recorded_and_gone(published: Published) -> None:
    plant_everything(published.plant)
    planted = published.tips()
    code, audit = published.audit()
    found = {finding["kind"] for finding in json.loads(audit.read_text())["findings"]}
    assert code == 1
    assert found >= {
        "duplicate-weights",
        "size-mismatch",
        "missing-step",
        "config-mismatch",
        "card-snippet",
        "readme-in-lfs",
        "inherited-files",
        "no-safetensors",
        "card-metadata",
        "main-not-final",
    }
    outcome = published.repair(audit)
    wrong = (2, 4, 8, 16, 32, 64, 128, 256, 1000)
    assert (outcome.published, outcome.failed, outcome.main.status) == (wrong, (), "published")  # type: ignore[attr-defined]
    assert outcome.commits == len(wrong) + 1 + 1  # type: ignore[attr-defined]  # main; emptying step64
    code, again = published.audit()
    assert code == 0, again.read_text()
    after = published.tips()
    assert {name for name in after if after[name] != planted.get(name)} == {"main", *(f"step{step}" for step in wrong)}
    check_records(published, planted, after)
    assert make_cards(propose(str(published.run), TARGET), published.client).changed == ()  # publish cards --check
    assert published.repair(audit).commits == 0  # type: ignore[attr-defined]
    assert run_release(published.run, published.client, published.folder, verify_logits="off").commits == 0
    assert published.tips() == after


def check_records(published: Published, planted: Mapping[str, str], after: Mapping[str, str]) -> None:
    """checkpoints.json and the card list what was wrong, since which commit, and the commit that replaced it."""
    files = published.plant.read("main")
    listed = json.loads(files["checkpoints.json"])["notes"]["errata"]
    errata = {erratum["branch"]: erratum for erratum in listed}
    assert len(errata) == len(listed)
    assert set(errata) == {"main", *(f"step{step}" for step in (2, 4, 8, 16, 32, 64, 128, 256, 1000))}
    only = errata["step4"]
    assert (only["kinds"], only["since"], only["replaced_by"]) == (["size-mismatch"], planted["step4"], after["step4"])
    assert errata["step8"]["since"] == ""
    assert errata["main"]["kinds"] == ["main-not-final"]
    card = files["README.md"].decode()
    assert "## Errata" in card
    assert after["step4"][:12] in card
    attributes = published.plant.read("step64")[".gitattributes"]
    assert b"README.md" not in attributes


@pytest.mark.slow
def test_since_is_the_first_wrong_commit(published: Published) -> None:
    held = published.plant.read("step2")["model.safetensors"]
    first = published.plant.put("step2", {"model.safetensors": held[:-8]})
    published.plant.put("step2", {"model.safetensors": held[:-16]})
    outcome = published.repair(published.audit()[1])
    assert outcome.published == (2,)  # type: ignore[attr-defined]
    listed = json.loads(published.plant.read("main")["checkpoints.json"])["notes"]["errata"]
    assert [(erratum["branch"], erratum["since"]) for erratum in listed] == [("step2", first)]
    published.plant.put("step4", {"extra.txt": b"x"})
    published.repair(published.audit()[1])
    kept = json.loads(published.plant.read("main")["checkpoints.json"])["notes"]["errata"]
    assert [erratum["branch"] for erratum in kept] == ["step2", "step4"]


def test_a_branch_that_moved_after_the_audit_is_not_touched(published: Published) -> None:
    held = published.plant.read("step2")["model.safetensors"]
    published.plant.put("step2", {"model.safetensors": held[:-8]})
    _, audit = published.audit()
    mine = published.plant.put("step2", {"notes.txt": b"mine"})
    outcome = published.repair(audit)
    assert [failure.step for failure in outcome.failed] == [2]  # type: ignore[attr-defined]
    assert "changed by mallory" in outcome.failed[0].detail  # type: ignore[attr-defined]
    assert published.tips()["step2"] == mine


@pytest.mark.slow
def test_an_interrupted_repair_continues(published: Published) -> None:
    """Killed after a branch was emptied, or after its commit and before that of main: the errata are complete."""
    held = {step: published.plant.read(f"step{step}") for step in (2, 64)}
    published.plant.put("step64", {"README.md": held[64]["README.md"]}, lfs=("README.md",))
    published.plant.put("step2", {"model.safetensors": held[2]["model.safetensors"][:-8]})
    _, audit = published.audit()
    rest = tuple(path for path in held[64] if path != ".gitattributes")
    published.plant.put("step64", {}, drop=rest)
    published.plant.put("step2", held[2])
    outcome = published.repair(audit)
    assert (outcome.published, outcome.failed) == ((64,), ())  # type: ignore[attr-defined]
    assert published.audit()[0] == 0
    listed = json.loads(published.plant.read("main")["checkpoints.json"])["notes"]["errata"]
    tips = published.tips()
    replaced = {erratum["branch"]: erratum["replaced_by"] for erratum in listed}
    assert replaced == {"step2": tips["step2"], "step64": tips["step64"]}


def test_findings_that_need_manual_action_are_listed(published: Published) -> None:
    published.plant.put("step77", published.plant.read("step2"))
    code, audit = published.audit()
    assert code == 1
    release = published.folder / "release.yaml"
    made = CliRunner().invoke(main, ["init", str(published.run), "--target", TARGET, "-o", str(release)])
    assert made.exit_code == 0, made.output
    runner = CliRunner(env={"HF_TOKEN": "hf_alice"})
    result = runner.invoke(main, ["all-steps", str(release), "--only-findings", str(audit), *OPTIONS])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["commits"]) == (1, 0)
    assert document["left"][0].startswith("unexpected-branch: step77")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("{}", "repos is missing"),
        ('{"repos": [{"repo": "a/b"}], "findings": []}', "not of alice/tiny"),
        ('{"repos": [{"repo": "alice/tiny"}], "findings": [{"kind": 3}]}', "kind"),
    ],
)
def test_a_file_that_is_not_an_audit_of_the_target_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises(PublishError, match=says):
        read_repair(path, TARGET)
    with pytest.raises(PublishError, match="cannot read the audit"):
        read_repair(tmp_path / "none.json", TARGET)


def test_a_repair_needs_neither_evidence_nor_tips(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    finding = {"kind": "size-mismatch", "branches": ["step4"], "steps": [4], "detail": "short"}
    path.write_text(json.dumps({"repo": TARGET, "repos": [{"repo": TARGET}], "findings": [finding], "ok": False}))
    repair = read_repair(path, TARGET)
    assert (list(repair.steps), repair.tips, HubError.exit_code) == ([4], {}, 2)


@pytest.mark.slow
def test_a_repair_of_main_keeps_its_plots(published: Published) -> None:
    """A card leaves LFS only if the branch is emptied first; the plots are then drawn again, to the same bytes."""
    before = published.plant.read("main")
    assert any(path.startswith("plots/") for path in before)
    published.plant.put("main", {"README.md": before["README.md"], ".gitattributes": LFS_README}, lfs=("README.md",))
    _, audit = published.audit()
    outcome = published.repair(audit)
    assert (outcome.failed, outcome.main.status) == ((), "published")  # type: ignore[attr-defined]
    after = published.plant.read("main")
    assert {path: text for path, text in after.items() if path.startswith("plots/")} == {
        path: text for path, text in before.items() if path.startswith("plots/")
    }
    assert published.audit()[0] == 0
