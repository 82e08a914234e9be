"""Slurm's commands say what they like; publish understands it, or says clearly what to change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from publish.errors import GateError, SlurmError
from publish.release.outcome import Failure
from publish.slurm.commands import Settings, Slurm, TaskState
from publish.slurm.executor import JobArray, PollIntervals
from publish.slurm.folder import Attempt, Batch, Result, SharedFolder, driver_lock
from tests.slurm.fake import FakeSlurm

Programs = Callable[..., Slurm]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A Slurm whose commands are these shell scripts; those that are not named do nothing."""

    def make(**scripts: str) -> Slurm:
        for name in ("sbatch", "squeue", "scancel", "scontrol", *scripts):
            (tmp_path / name).write_text(f"#!/bin/sh\n{scripts.get(name, 'exit 0')}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return Slurm()

    return make


def submit(slurm: Slurm, tmp_path: Path) -> str:
    return slurm.submit("publish-1", tmp_path / "task.sh", ("a", "b"), "0-1%2", tmp_path / "log", Settings())


@pytest.mark.parametrize("said", ["17", "17;alpha", "Welcome to alpha, 3 jobs wait\\n17"])
def test_a_job_id_is_found_in_what_sbatch_says(said: str, programs: Programs, tmp_path: Path) -> None:
    assert submit(programs(sbatch=f"printf '{said}\\n'"), tmp_path) == "17"


def test_an_answer_without_a_job_id_is_an_error(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="no job id"):
        submit(programs(sbatch="echo accepted"), tmp_path)


def test_a_controller_that_does_not_answer_is_named(programs: Programs) -> None:
    slurm = programs(scontrol="echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact") as caught:
        slurm.largest_array()
    assert "scontrol ping" in caught.value.fix


@pytest.mark.parametrize("told", ["MaxArraySize = 0", "MaxJobCount = 10"])
def test_a_cluster_without_arrays_is_refused(told: str, programs: Programs) -> None:
    with pytest.raises(SlurmError, match="MaxArraySize"):
        programs(scontrol=f"echo '{told}'").largest_array()


def test_the_queue_is_read_with_whatever_is_in_it(programs: Programs) -> None:
    lines = (
        "publish-a|0|RUNNING|None\\npublish-a|1|PENDING|JobArrayTaskLimit\\npublish-a|N/A|FAILED|NonZeroExitCode\\n\\n"
    )
    found = programs(squeue=f"printf '{lines}'").tasks(["publish-a"])
    assert found == {
        ("publish-a", 0): TaskState("RUNNING", "None"),
        ("publish-a", 1): TaskState("PENDING", "JobArrayTaskLimit"),
    }


def test_accounting_is_used_where_there_is_one(programs: Programs) -> None:
    assert programs(sacct="printf '7_0|COMPLETED|0:0\\n7_1|OUT_OF_MEMORY|0:125\\n'").sacct_state("publish-a", 1) == (
        "OUT_OF_MEMORY, exit code 0:125"
    )
    assert programs(sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1").sacct_state("publish-a", 1) is None
    assert programs(sacct="exit 0").sacct_state("publish-a", 1) is None


@pytest.mark.parametrize(
    "option",
    ["--array=0-3", "--export=ALL,HF_TOKEN=hf_x", "--requeue", "-J x", "-o log", "--wrap=ls", "qos=high", "", "--"],
)
def test_options_that_are_not_for_the_maintainer_to_set_are_refused(option: str) -> None:
    with pytest.raises(SlurmError) as caught:
        Settings(further=(option,))
    assert "--sbatch-option" in caught.value.where


def test_tasks_that_will_never_run_end_it(programs: Programs, tmp_path: Path) -> None:
    """Slurm takes a job that is longer than its partition allows, and lets it wait for ever."""
    lines = "publish-a|0|PENDING|PartitionTimeLimit\\n"
    slurm = programs(squeue=f"printf '{lines}'", scontrol="echo 'MaxArraySize = 1001'")
    array = JobArray(slurm, Settings(), PollIntervals(queue=0), empty(tmp_path), 2, "alice/tiny")
    array.folder.add("a", Batch({"0": 512}, 4))
    array.begin([512])
    with pytest.raises(SlurmError, match="PartitionTimeLimit") as caught:
        list(array.collect())
    assert "--time" in caught.value.fix


def test_a_silent_controller_loses_nobody(programs: Programs, tmp_path: Path) -> None:
    slurm = programs(squeue="exit 1", scontrol="echo 'MaxArraySize = 1001'")
    array = JobArray(slurm, Settings(), PollIntervals(queue=0, grace=0, silence=3600), empty(tmp_path), 2, "alice/tiny")
    array.folder.add("a", Batch({"0": 512}, 4))
    array.begin([512])
    assert list(array.collect()) == list(array.collect()) == []
    assert list(array.in_flight.values()) == [512]
    array.intervals = PollIntervals(queue=0, grace=0, silence=0)
    with pytest.raises(SlurmError, match="squeue failed"):
        list(array.collect())


def test_a_refusal_that_may_pass_is_waited_out_and_not_pressed(programs: Programs, tmp_path: Path) -> None:
    """A limit of submitted jobs is reached while tasks are under way: their end makes room."""
    slurm = programs(sbatch=f"echo x >> {tmp_path}/asked; exit 1", scontrol="echo 'MaxArraySize = 1001'")
    array = JobArray(slurm, Settings(), PollIntervals(), empty(tmp_path), 4, "alice/tiny")
    array.begin([0, 1])
    array.held[tmp_path] = Attempt("a", 0)
    for _ in range(3):
        array.submit()
    assert (tmp_path / "asked").read_text().count("x") == 1
    assert (list(array.waiting), array.folder.batches()) == ([0, 1], {})
    array.held.clear()
    with pytest.raises(SlurmError, match="sbatch failed"):
        array.submit()


def empty(tmp_path: Path) -> SharedFolder:
    folder = SharedFolder(tmp_path / "slurm")
    for name in ("batches", "slots", "tasks", "results", "logs"):
        (folder.root / name).mkdir(parents=True)
    return folder


def test_what_a_driver_left_is_taken_over_and_the_rest_swept(programs: Programs, tmp_path: Path) -> None:
    folder = empty(tmp_path)
    folder.add("a", Batch({"0": 0, "1": 1, "2": 2}, 4))
    for index in (1, 2):
        assert folder.take_slot(Attempt("a", index), 4)
    assert folder.take_slot(Attempt("gone", 7), 4)
    folder.leave(Attempt("gone", 7), Result(8, "node"))
    array = JobArray(
        programs(scontrol="echo 'MaxArraySize = 1001'"), Settings(), PollIntervals(), folder, 2, "alice/tiny"
    )
    array.begin([0, 2, 4])  # step 1 was published meanwhile
    assert array.in_flight == {Attempt("a", 0): 0, Attempt("a", 2): 2}
    assert list(array.waiting) == [4]
    assert folder.attempts() == array.in_flight.keys()
    assert set(folder.slots().values()) == {Attempt("a", 2)}


def test_a_folder_has_as_many_slots_as_it_says(tmp_path: Path) -> None:
    folder = empty(tmp_path)
    taken = [folder.take_slot(Attempt("a", index), 3) for index in range(5)]
    assert taken == [True, True, True, False, False]
    folder.settle(Attempt("a", 1))
    assert folder.take_slot(Attempt("b", 0), 3)
    assert not folder.take_slot(Attempt("b", 1), 3)


def test_a_task_that_was_given_up_ends_without_a_step(tmp_path: Path) -> None:
    """A node that comes back runs on; its task finds its array settled, or the whole folder gone."""
    empty(tmp_path)
    for root in (tmp_path / "slurm", tmp_path / "nowhere"):
        command = [sys.executable, "-m", "publish.slurm", str(root), "a", "0"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert "all nodes share" in done.stderr


def test_a_failure_reaches_the_driver_as_it_was(tmp_path: Path) -> None:
    folder, attempt = empty(tmp_path), Attempt("a", 0)
    failure = Failure.of("step8", 8, GateError("what", "where", "fix"))
    folder.leave(attempt, Result(8, "node", failure=failure))
    assert folder.result(attempt).failure == failure
    assert (failure.kind, failure.detail, failure.fix) == ("gate", "what (at where)", "fix")


def test_a_lock_is_for_one_driver(tmp_path: Path) -> None:
    with driver_lock(tmp_path), pytest.raises(SlurmError, match=f"process {os.getpid()}"), driver_lock(tmp_path):
        pass
    with driver_lock(tmp_path):
        pass


def test_the_command_line_says_what_is_wrong_before_it_begins(tmp_path: Path, cluster: FakeSlurm) -> None:
    code = "from publish.cli import main; main()"
    cases = {
        ("--partition", "debug"): "--partition is an option for Slurm",
        ("--executor", "slurm", "--sbatch-option=--array=3"): "--array cannot be passed on",
        ("--executor", "slurm"): "is not on this machine",
    }
    for options, words in cases.items():
        env = {**os.environ, "PATH": "/nowhere"} if "not on this machine" in words else None
        command = [sys.executable, "-c", code, "all-steps", str(tmp_path), "alice/tiny", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert "  fix: " in done.stderr
    assert cluster.calls("sbatch") == []
