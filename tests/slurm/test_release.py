"""A release on a cluster ends as one on a single machine, whatever happens to its tasks, its nodes or its driver."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publish.errors import SlurmError
from publish.rehearsal.server import RehearsalHub
from publish.release.outcome import Outcome
from publish.slurm.commands import Settings
from tests.release.campaign import state
from tests.release.processes import CODE
from tests.release.releases import TARGET, few
from tests.release.test_disk import HeldClock
from tests.slurm.fake import FakeSlurm

STEPS = (0, 1, 512)
Release = Callable[..., Outcome]


def commits(hub: RehearsalHub) -> dict[str, int]:
    return dict(hub.stats().commits.get(TARGET, {}))


def once(*steps: int) -> dict[str, int]:
    return {"main": 1, **{f"step{step}": 1 for step in steps}}


def driver(run: Path, work: Path, *further: str) -> subprocess.Popen[str]:
    arguments = ["all-steps", str(run), TARGET, "--work-dir", str(work), "--executor", "slurm", *further]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", CODE, *arguments], stdout=pipe, stderr=pipe, text=True)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def test_it_is_the_same_release_to_the_byte(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm, release_on: Release
) -> None:
    run = few(samples, tmp_path, STEPS)
    outcome = release_on(run, Settings("debug", "lab", "10", "2G", 1, ("--qos=low", "-N 1")))
    assert (outcome.published, outcome.failed, outcome.main.status) == (STEPS, (), "published")
    assert commits(hub) == once(*STEPS)
    on_the_cluster = state(hub.url)
    HfApi(endpoint=hub.url, token="hf_alice").delete_repo(TARGET)
    shutil.rmtree(tmp_path / "work")
    again = release_on(run, local=True)
    assert (again.published, again.bytes_read) == (STEPS, outcome.bytes_read)
    assert state(hub.url) == on_the_cluster
    (call,) = cluster.calls("sbatch")
    assert {"--array=0-2%2", "--no-requeue", "--export=ALL", "--partition=debug", "--account=lab"} <= set(call)
    assert {"--time=10", "--mem=2G", "--cpus-per-task=1", "--qos=low", "-N", "1"} <= set(call)
    assert "hf_alice" not in " ".join(" ".join(each) for name in ("sbatch", "squeue") for each in cluster.calls(name))


@pytest.mark.slow
def test_tasks_killed_and_lost_in_short_arrays_are_made_up_for(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm, release_on: Release
) -> None:
    cluster.configure(max_array_size=2, lose=1, kill=1)
    hub.inject([{"route": "/preupload/main", "status": 403, "nth": 1, "count": len(STEPS)}])  # nothing goes ahead
    outcome = release_on(few(samples, tmp_path, STEPS))
    assert (outcome.published, outcome.failed, outcome.main.status) == (STEPS, (), "published")
    assert commits(hub) == once(*STEPS)
    assert all(int(array.split("%")[0].split("-")[1]) < 2 for array in cluster.arrays())
    assert len(cluster.tasks()) + 1 == len(STEPS) + 2  # one vanished, two were made twice
    assert not (tmp_path / "work" / "slurm").exists()


@pytest.mark.slow
def test_a_step_that_no_task_survives_fails_with_what_is_known(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm, release_on: Release
) -> None:
    cluster.configure(kill=99)
    outcome = release_on(few(samples, tmp_path / "one", (0,)))
    assert [(each.step, each.kind) for each in outcome.failed] == [(0, "slurm")]
    assert "3 tasks ended without a result" in outcome.failed[0].detail
    assert "FAILED" in outcome.failed[0].detail
    assert len(cluster.tasks()) == 3
    cluster.configure(kill=0)
    run = few(samples, tmp_path / "two", (0, 1))
    shutil.copy(run / "global_step0/mp_rank_00_model_states.pt", run / "global_step1")  # says iteration 0
    outcome = release_on(run)
    assert outcome.published == (0,)
    assert [(each.step, each.kind) for each in outcome.failed] == [(1, "gate")]
    assert "holds iteration 0" in outcome.failed[0].detail
    assert len(cluster.tasks()) == 5  # what a gate found is no reason to try again


@pytest.mark.slow
def test_a_killed_driver_is_taken_over_and_nothing_is_submitted_twice(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm
) -> None:
    run, work = few(samples, tmp_path, STEPS), tmp_path / "work"
    for moment in (lambda: cluster.processes(), lambda: list(work.glob("slurm/results/*.json"))):
        process = driver(run, work)
        until(moment)
        process.kill()
        process.communicate()
    until(lambda: not cluster.processes())
    process = driver(run, work)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert commits(hub) == once(*STEPS)
    assert len(cluster.tasks()) == len(STEPS)
    assert sorted(path.name for path in work.iterdir()) == [".lock", "slurm.lock"]


@pytest.mark.slow
def test_ctrl_c_cancels_its_tasks_and_a_rerun_goes_on(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm, release_on: Release
) -> None:
    run, work = few(samples, tmp_path, STEPS), tmp_path / "work"
    process = driver(run, work)
    until(cluster.processes)
    second = driver(run, work)
    _, err = second.communicate(timeout=60)
    assert (second.returncode, "another driver works here" in err) == (2, True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    states = Counter(state for _, state, _ in cluster.tasks())
    assert states["PENDING"] == states["RUNNING"] == 0
    outcome = release_on(run)
    assert outcome.failed == ()
    assert commits(hub) == once(*STEPS)


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # it was renamed into place
        return b""


@pytest.mark.slow
def test_no_step_is_started_while_the_folder_is_full(
    samples: Path, tmp_path: Path, hub: RehearsalHub, cluster: FakeSlurm, release_on: Release
) -> None:
    clock, lying = HeldClock(), []

    def all_have_run() -> bool:
        assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and b"hf_alice" in content(path)]
        lying.append(len(list(tmp_path.glob("work/slurm/tasks/*/step*/README.md"))))
        return [state for _, state, _ in cluster.tasks()].count("COMPLETED") >= len(STEPS)

    run = few(samples, tmp_path, STEPS)
    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(release_on, run, workers=1, held=clock)
        try:
            until(all_have_run)
        finally:
            clock.released.set()
        outcome = released.result(60)
    assert (outcome.published, outcome.failed) == (STEPS, ())
    assert commits(hub) == once(*STEPS)
    assert max(lying) == 2
    assert len(cluster.tasks()) == len(STEPS) + 1  # one found no slot, left at once, and came again
    assert [array.split("%")[0] for array in cluster.arrays()] == ["0-2", "0-0"]


@pytest.mark.parametrize(
    ("refuse", "fix"),
    [
        ("Invalid partition name specified", "--partition"),
        ("Invalid account or account/partition combination specified", "--account"),
        ("Requested node configuration is not available", "--cpus"),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "--"),
    ],
)
def test_what_sbatch_refuses_is_said_once(
    refuse: str, fix: str, samples: Path, tmp_path: Path, cluster: FakeSlurm, release_on: Release
) -> None:
    cluster.configure(refuse=refuse)
    with pytest.raises(SlurmError) as caught:
        release_on(few(samples, tmp_path, (0, 1)))
    assert refuse in caught.value.what
    assert fix in caught.value.fix
    assert cluster.tasks() == []
