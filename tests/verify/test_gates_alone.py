"""A single gate can be requested; the others are skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publish.verify.gates import GATES
from tests.cli.test_commands import publish, refused


@pytest.mark.parametrize("gate", [name for name in GATES if name != "validation-logits"])
def test_a_gate_runs_alone(samples: Path, tmp_path: Path, gate: str) -> None:
    source = samples / "global_step2"
    done = publish("convert", source, "--out", tmp_path / "out", "--tokenizer", "none", "--gates", gate, "--json")
    assert done.returncode == 0, done.stderr
    outcomes = {found["name"]: found["outcome"] for found in json.loads(done.stdout)["gates"]}
    assert outcomes.pop(gate) == "passed"
    assert set(outcomes.values()) == {"skipped"}


def test_a_gate_that_does_not_exist_is_refused(samples: Path, tmp_path: Path) -> None:
    source = samples / "global_step2"
    refused(publish("convert", source, "--out", tmp_path / "out", "--gates", "finite,frobnicate"), "'frobnicate'")
    assert not (tmp_path / "out").exists()
