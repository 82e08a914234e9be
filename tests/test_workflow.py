"""The workflow that maintainers copy: it is valid YAML and calls commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from publish.cli.cards import command

WORKFLOW = Path(__file__).resolve().parents[1] / "scripts" / "regenerate-cards.yml"


def test_the_workflow_runs_the_command_as_it_is() -> None:
    document: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    triggers = document[True]  # YAML 1.1 reads the key `on` as a truth
    assert {"schedule", "push", "workflow_dispatch"} <= triggers.keys()
    assert "release.yaml" in triggers["push"]["paths"]
    (job,) = document["jobs"].values()
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    runs = [step["run"] for step in job["steps"] if "publish cards" in step.get("run", "")]
    options = {name for parameter in command.params for name in parameter.opts}
    used = {option for run in runs for option in re.findall(r"--[a-z-]+", run)}
    assert used == {"--check", "--push"}
    assert used <= options
