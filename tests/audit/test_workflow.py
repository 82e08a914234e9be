"""The weekly workflow: its steps are run with the real command and a fake gh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from publish.rehearsal.server import RehearsalHub
from tests.audit.suites import publish_suite

ROOT = Path(__file__).resolve().parents[2]


def steps() -> dict[str, dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / "docs" / "audit-workflow.yml").read_text())
    return {step["name"]: step for step in workflow["jobs"]["audit"]["steps"] if "name" in step}


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, hub: RehearsalHub) -> dict[str, str]:
    """The environment of a runner: publish, gh, and the files that GitHub reads."""
    folder = tmp_path / "bin"
    folder.mkdir()
    call = "from publish.cli import main; main()"
    program(folder, "publish", f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -c "{call}" "$@"\n')
    program(folder, "gh", '#!/bin/sh\necho "$@" >> calls\n[ "$2" = list ] && cat number 2> /dev/null\nexit 0\n')
    workflow = yaml.safe_load((ROOT / "docs" / "audit-workflow.yml").read_text())
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HF_ENDPOINT": hub.url,
        "SUITES": "lab/a lab/b",
        "OPTIONS": "--schedule 1,2,3",
        "TITLE": workflow["env"]["TITLE"],
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }


def run(name: str, machine: dict[str, str], folder: Path) -> int:
    script = steps()[name]["run"]
    return subprocess.run(["bash", "-e", "-c", script], env=machine, cwd=folder, check=False).returncode


def test_findings_open_one_issue_and_update_it(tmp_path: Path, hub: RehearsalHub, machine: dict[str, str]) -> None:
    suites = [publish_suite(hub.root, repo, (1, 2, 3), seed=seed) for seed, repo in enumerate(("lab/a", "lab/b"))]
    assert run("Audit", machine, tmp_path) == 0
    assert (tmp_path / "output").read_text() == "found=0\n"
    suites[1].copy_weights("step2", "step1")
    assert run("Audit", machine, tmp_path) == 0
    assert (tmp_path / "output").read_text().splitlines()[-1] == "found=1"
    assert "duplicate-weights" in (tmp_path / "issue.md").read_text()
    assert "duplicate-weights" in (tmp_path / "summary").read_text()
    assert run("Open or update the issue", machine, tmp_path) == 0
    (tmp_path / "number").write_text("7\n")
    assert run("Open or update the issue", machine, tmp_path) == 0
    calls = [line.split()[:2] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == [["issue", "list"], ["issue", "create"], ["issue", "list"], ["issue", "edit"]]


def test_an_audit_that_cannot_run_fails_the_job(tmp_path: Path, machine: dict[str, str]) -> None:
    assert run("Audit", {**machine, "SUITES": "lab/none"}, tmp_path) == 2
    assert not (tmp_path / "output").exists()
