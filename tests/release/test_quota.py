"""The quota of commits, in processes of their own: kept, and remembered by the next one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from publish.rehearsal.server import RehearsalHub
from tests.release.processes import start
from tests.release.releases import TARGET, few

STEPS = (0, 1, 2, 4, 8)


def committed(hub: RehearsalHub) -> int:
    return sum(hub.stats().commits.get(TARGET, {}).values())


@pytest.mark.slow
def test_remembered_by_the_next_process(samples: Path, tmp_path: Path) -> None:
    run = few(samples, tmp_path, STEPS)
    with RehearsalHub(tmp_path / "hub", faults=[{"commits_per_hour": 3}]) as hub:
        for number in (1, 2):
            before = hub.stats().requests.get("preupload", 0)
            process = start(hub.url, run, tmp_path / f"work{number}", "--commits-per-hour", "3")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                asked = hub.stats().requests.get("preupload", 0) - before
                if committed(hub) == 3 and asked > (3 if number == 1 else 0):
                    break
                time.sleep(0.02)
            time.sleep(0.5)  # now it waits for the hour to pass
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            assert process.returncode == 130
            assert "3 steps published, 2 remaining" in err
        assert (committed(hub), hub.stats().requests["commit"]) == (3, 3)  # the server had to refuse nothing
        hub.inject(None)
        last = start(hub.url, run, tmp_path / "work", "--commits-per-hour", "100")
        last.communicate(timeout=30)
        assert last.returncode == 0
        assert committed(hub) == len(STEPS) + 1
