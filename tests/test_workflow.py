"""Workflows of GitHub: those of this repository and one that maintainers copy call commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from publish.cli.cards import command

ROOT = Path(__file__).resolve().parents[1]


def read(path: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_change_is_checked_with_everything() -> None:
    document = read(".github/workflows/check.yml")
    assert {"push", "pull_request"} <= document[True].keys()  # YAML 1.1 reads the key `on` as a truth
    assert document["permissions"] == {"contents": "read"}
    (job,) = document["jobs"].values()
    (setup,) = (step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@"))
    assert setup["python-version"] == "3.11"  # the oldest that pyproject.toml allows
    assert commands(job) == ["scripts/check --all", "scripts/demo"]
    for path in (*setup["cache-dependency-path"].split(), "scripts/check", "scripts/demo"):
        assert (ROOT / path).is_file()


def test_what_ci_runs_here_is_what_github_runs() -> None:
    (job,) = read(".github/workflows/check.yml")["jobs"].values()
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert [line for line in script.splitlines() if line.startswith("scripts/")] == commands(job)


def test_the_cards_workflow_runs_the_command_as_it_is() -> None:
    document = read("scripts/regenerate-cards.yml")
    triggers = document[True]
    assert {"schedule", "push", "workflow_dispatch"} <= triggers.keys()
    assert "release.yaml" in triggers["push"]["paths"]
    (job,) = document["jobs"].values()
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    runs = [run for run in commands(job) if "publish cards" in run]
    options = {name for parameter in command.params for name in parameter.opts}
    used = {option for run in runs for option in re.findall(r"--[a-z-]+", run)}
    assert used == {"--check", "--push"}
    assert used <= options
