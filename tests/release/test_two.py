"""Two publishers at once on one target: both end well, nobody overwrites the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.release.processes import commits_of, start
from tests.release.releases import TARGET, few

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)


@pytest.mark.slow
def test_two_publishers_at_once(samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path, STEPS)
    with RehearsalHub(tmp_path / "hub", api_quota=10**6, resolver_quota=10**6) as hub:
        both = [start(hub.url, run, tmp_path / f"work{number}", "--json") for number in (1, 2)]
        ends = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], ends
        outcomes = [json.loads(out) for out, _ in ends]
        assert commits_of(hub) == {"main": 2, **{f"step{step}": 2 for step in STEPS}}
        made = [set(outcome["published"]) for outcome in outcomes]
        assert made[0] | made[1] == set(STEPS)
        assert made[0] & made[1] == set()
        assert sum(outcome["commits"] for outcome in outcomes) == len(STEPS) + 1
        assert sum(hub.stats().commits[TARGET].values()) == len(STEPS) + 1
        assert [outcome["failed"] for outcome in outcomes] == [[], []]
