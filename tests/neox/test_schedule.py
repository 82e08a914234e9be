"""A run's steps against a schedule."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from publish.errors import ScheduleError, SourceError
from publish.neox.schedule import check_schedule, expected_steps
from publish.schedule import FROM_CONFIG, PYTHIA
from publish.sources.runs import Location, TrainingRun, open_run


def folders(tmp_path: Path, *names: str) -> TrainingRun:
    for name in names:
        (tmp_path / name).mkdir()
    return open_run(Location(tmp_path))


def test_missing_unexpected_and_unparsable_names_are_told_apart(tmp_path: Path) -> None:
    run = folders(tmp_path, "main", "step0", "step2", "global_step3", "step-7")
    report = check_schedule(run, (0, 1, 2), names_only=True)
    assert (report.missing, report.unexpected, report.ok) == ((1,), ("global_step3", "step-7"), False)
    assert [problem.kind for problem in report.problems] == ["unparsable-name"]


def test_two_names_of_one_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="global_step0 and step0 are both step 0"):
        folders(tmp_path, "step0", "global_step0")


def test_the_sample_run_has_its_schedule(samples: Path) -> None:
    run = open_run(Location(samples))
    assert expected_steps(run, FROM_CONFIG) == PYTHIA
    assert check_schedule(run, "pythia").ok


def test_a_checkpoint_that_is_another_step_is_a_problem(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples / "global_step512", tmp_path / "global_step1")
    (tmp_path / "global_step2").mkdir()
    report = check_schedule(open_run(Location(tmp_path)), (1, 2))
    assert [(problem.step, problem.kind) for problem in report.problems] == [(1, "wrong-iteration"), (2, "unreadable")]
    assert "iteration 512" in report.text("1,2")


def test_a_config_that_does_not_tell_the_schedule_is_refused(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "step0").mkdir()
    (tmp_path / "step0" / "run.yml").write_text("seed: 1\n")
    with pytest.raises(ScheduleError, match="train_iters must be a positive integer, got None"):
        expected_steps(open_run(Location(tmp_path)), FROM_CONFIG)
