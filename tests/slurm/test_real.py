"""A real Slurm, where this machine has one: slurmctld, two slurmd and munged of their own, as root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "slurm"
STEPS = 12


@pytest.mark.slow
def test_a_release_survives_a_task_a_node_and_the_driver_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import cluster

    if absent := cluster.missing():
        pytest.skip(f"no Slurm to rehearse on: this machine lacks {', '.join(absent)}")
    command = [sys.executable, str(SCRIPTS / "rehearsal.py"), "--steps", str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{STEPS} steps published once each" in done.stdout
