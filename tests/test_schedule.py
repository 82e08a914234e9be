"""A wrong schedule means missing or surplus branches that nobody notices for years."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publish.errors import ScheduleError
from publish.schedule import LOG_SPACED_20, PYTHIA, branch_of, from_config, parse_steps, step_of

PYTHIA_OPTIONS = {
    "checkpoint_factor": 1000,
    "extra_save_iters": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
    "train_iters": 143_000,
}


def test_pythia_has_its_154_steps() -> None:
    assert len(PYTHIA) == 154
    assert PYTHIA[:12] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    assert PYTHIA[-1] == 143_000


def test_log_spaced_20() -> None:
    assert len(LOG_SPACED_20) == 20
    assert set(LOG_SPACED_20) <= set(PYTHIA)


def test_the_pythia_config_gives_the_pythia_schedule() -> None:
    assert from_config(PYTHIA_OPTIONS, "here") == PYTHIA


def test_a_log_scale_follows_the_factor() -> None:
    options = {"checkpoint_factor": 2, "checkpoint_scale": "log", "train_iters": 20}
    assert from_config(options, "here") == (2, 4, 8, 16, 20)


@pytest.mark.parametrize("options", [{}, {"train_iters": 0, "checkpoint_factor": 10}, {"train_iters": "many"}])
def test_a_config_that_does_not_tell_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ScheduleError):
        from_config(options, "here")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("0,1,512", (0, 1, 512)),
        ("0:3", (0, 1, 2, 3)),
        ("1000:5000:2000", (1000, 3000, 5000)),
        ("512,0:2,1", (0, 1, 2, 512)),
    ],
)
def test_lists_of_steps(text: str, steps: tuple[int, ...]) -> None:
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "a", "1:0", "1:9:0", "-1", "1,,2", "0:1e6", "0:99999999999:1"])
def test_what_is_no_list_of_steps_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError):
        parse_steps(text)


@given(st.sets(st.integers(0, 10**6), min_size=1))
def test_steps_written_out_are_read_back(steps: set[int]) -> None:
    assert parse_steps(",".join(map(str, steps))) == tuple(sorted(steps))


@given(st.integers(0, 10**9))
def test_a_branch_names_its_step(step: int) -> None:
    assert step_of(branch_of(step)) == step
    assert step_of(f"global_step{step}") == step


@pytest.mark.parametrize("name", ["main", "step01", "step", "step-1", "Step5", "step5 ", "step1_0", "refs/step5"])
def test_other_names_are_no_step(name: str) -> None:
    assert step_of(name) is None
