"""The command: exit codes, JSON, the reports for people."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from publish.audit.names import CONVENTIONS
from publish.audit.report import MEANINGS
from publish.cli.group import main
from publish.rehearsal.server import RehearsalHub
from tests.audit.suites import Planted, publish_suite

KEYS = {"repo", "branches", "requests", "bytes_downloaded", "findings", "ok"}
STEPS = (0, 1, 2, 4)


@pytest.fixture
def suite(hub: RehearsalHub, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return publish_suite(hub.root, "lab/a", STEPS)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["audit", *arguments])


def test_exit_codes_and_json(suite: Planted) -> None:
    clean = run("lab/a", "--json")
    document = json.loads(clean.stdout)
    assert (clean.exit_code, document["ok"], document["findings"]) == (0, True, [])
    assert document.keys() >= KEYS
    assert (document["repo"], document["branches"]) == ("lab/a", 5)
    suite.copy_weights("step2", "step1")
    found = run("hf://lab/a", "--json")
    document = json.loads(found.stdout)
    assert (found.exit_code, document["ok"]) == (1, False)
    (finding,) = document["findings"]
    assert (finding["kind"], finding["steps"]) == ("duplicate-weights", [1, 2])
    assert finding["branches"] == ["step1", "step2"]
    assert finding["evidence"][0].keys() == {"branch", "commit", "path", "sha256", "size"}
    (audited,) = document["repos"]
    assert audited.keys() == {"repo", "format", "axis", "names", "schedule", "notes", "tips"}
    assert (audited["repo"], audited["format"], audited["axis"]) == ("lab/a", "hf", "steps")
    assert audited["names"] == {"step1000": 4}
    assert audited["tips"]["step1"] == finding["evidence"][0]["commit"]


def test_every_kind_of_finding_is_documented() -> None:
    contract = """duplicate-weights mixed-shards main-not-final missing-step unexpected-branch no-safetensors
        size-mismatch config-mismatch inherited-files card-metadata card-snippet card-stale readme-in-lfs
        not-as-recorded"""
    assert list(MEANINGS) == contract.split()
    page = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()
    table = page.partition("## Findings")[2].partition("\n\n**")[0]
    assert [kind for kind in MEANINGS if f"`{kind}`" not in table] == []


def test_every_convention_of_names_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()
    rows = [f"| `{convention.example}` | {convention.used_by} |" for convention in CONVENTIONS]
    assert [row for row in rows if row not in page] == []


def test_the_reports_for_a_terminal_and_for_an_issue_tracker(suite: Planted) -> None:
    suite.copy_weights("step2", "step1")
    suite.put("step4", {"a|b`<img>.txt": b"x", "\x1b[31m.txt": b"y"})
    people = run("lab/a")
    assert people.exit_code == 1
    assert "duplicate-weights  1, 2" in people.stdout
    assert "0 bytes of them weights" in people.stdout
    assert "\x1b" not in people.stdout
    report = run("lab/a", "--markdown")
    assert report.exit_code == 1
    assert report.stdout.startswith("# Audit of lab/a\n")
    assert "| duplicate-weights | 1, 2 |" in report.stdout
    assert "<img>" not in report.stdout
    assert "\x1b" not in report.stdout
    rows = [line for line in report.stdout.splitlines() if line.startswith("| inherited")]
    assert all(line.count("|") == 4 for line in rows)
    assert run("lab/a", "--markdown").stdout == report.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lab/none",), "404"),
        (("nonsense",), "no folder of this name"),
        (("lab/a@step1",), "a whole repo"),
        (("lab/a", "--schedule", "weekly"), "unknown schedule"),
        (("lab/a", "--schedule", "from-config"), "no training config"),
        (("lab/a", "--branches", "ckpt_{step}"), "none of the 5 branches"),
        (("lab/a", "--branches", "ckpt"), "does not say where the step is"),
        (("lab/a", "--branches", "("), "not a regular expression"),
        (("lab/a", "--deep", "77"), "no branch is of step 77"),
        (("lab/a", "--release", "nowhere.yaml"), "cannot read"),
    ],
)
def test_what_cannot_run_exits_2_with_a_fix(suite: Planted, arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "fix:" in result.stderr
    assert not result.stdout


def test_a_release_file_of_another_repo_is_an_error(suite: Planted, tmp_path: Path) -> None:
    path = tmp_path / "release.yaml"
    path.write_text("source: run\ntarget: lab/b\n")
    result = run("lab/a", "--release", str(path))
    assert result.exit_code == 2
    assert "for lab/b, not for lab/a" in result.stderr


def test_damaged_cache_entries_are_read_again(suite: Planted, tmp_path: Path) -> None:
    first = json.loads(run("lab/a", "--json").stdout)
    kept = sorted((Path(os.environ["HF_HOME"]) / "publish" / "audit").rglob("*"))
    files = [path for path in kept if path.is_file()]
    assert len(files) > 10
    for path in files:
        path.write_bytes(path.read_bytes()[:-3])
    again = json.loads(run("lab/a", "--json").stdout)
    assert again["findings"] == []
    assert again["requests"] == first["requests"]
    assert json.loads(run("lab/a", "--json").stdout)["requests"] == 1
