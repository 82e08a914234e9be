"""Ctrl-C: over within seconds, it says where the release stands, nothing is left lying, and it goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.release.processes import commits_of, start
from tests.release.releases import TARGET, few

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
SECONDS = 8.0
# where the release is when Ctrl-C comes: at its third step, in an answer that does not come, in a wait as told
MOMENTS: dict[str, list[dict[str, Any]]] = {
    "at work": [],
    "a stalled commit": [{"route": "commit", "nth": 3, "count": 99, "delay": 60}],
    "a wait as told": [{"route": "commit", "nth": 3, "count": 99, "status": 429, "headers": {"Retry-After": "3600"}}],
    "preflight": [{"route": "whoami", "delay": 60}],
    "torch is imported": [],
}


def at(moment: str, hub: RehearsalHub, work: Path) -> bool:
    """Whether a release is where Ctrl-C shall meet it."""
    asked = hub.stats().requests
    if moment == "preflight":
        return asked.get("whoami", 0) >= 1
    if moment == "torch is imported":  # that takes seconds after the last request of preflight
        return asked.get("tree", 0) >= 1
    return asked.get("commit", 0) >= 3


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize(
    "moment", [moment if moment == "at work" else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_ctrl_c(moment: str, samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path, STEPS)
    with RehearsalHub(tmp_path / "hub", faults=MOMENTS[moment], api_quota=10**6) as hub:
        process = start(hub.url, run, tmp_path / "work")
        wait_for(lambda: at(moment, hub, tmp_path / "work"))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - began < SECONDS
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        if moment != "preflight":
            assert "published, " in err
            assert " remaining" in err
            assert "run the same command again" in err
        assert list((tmp_path / "work").glob("steps-*")) == []
        if moment != "preflight":
            assert set(commits_of(hub).values()) <= {1, 2}
        hub.inject(None)
        other_hour = str(tmp_path / "home")  # a wait as told is remembered in HF_HOME
        again = start(hub.url, run, tmp_path / "work", "--json", HF_HOME=other_hour)
        out, err = again.communicate(timeout=60)
        assert again.returncode == 0, err
        assert json.loads(out)["main"] == "published"
        assert commits_of(hub) == {"main": 2, **{f"step{step}": 2 for step in STEPS}}
        assert hub.stats().commits[TARGET] == {"main": 1, **{f"step{step}": 1 for step in STEPS}}
