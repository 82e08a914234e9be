"""The lineage of two real runs of 154 steps: no finding as they are, and every defect named with step and tensor."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from publish.lineage.sketch import sample_indices
from publish.lineage.suite import (
    FLAT,
    JUMP,
    NOT_EQUAL,
    OUT_OF_ORDER,
    REPEAT,
    REPEAT_ZEROS,
    SHARED,
    LineageFinding,
    Repeats,
    Trajectory,
    repeats,
    trace,
)
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.files import LocalFiles
from tests.conftest import shared
from tests.lineage.suites import BIAS, MATRIX, Suite, changed, found, release, sketches, zeroed

RUN = "suite/pythia-tiny-seed1234"


@pytest.fixture(scope="module")
def suite() -> Suite:
    return sketches(shared(RUN))


@pytest.fixture(scope="module")
def other() -> Suite:
    return sketches(shared("suite/pythia-tiny-seed1"))


def test_two_real_runs_have_no_finding(suite: Suite, other: Suite) -> None:
    for run in (suite, other):
        lineage = trace(run, release())
        assert lineage.findings == ()
        assert [gate.outcome for gate in lineage.gates()] == ["passed", "passed"]
    sparse = [0, *(2**power for power in range(10)), *(1000 * 2**power for power in range(8)), 143000]
    for steps in (sparse, sorted(suite)[::3], sorted(suite)[1::7], sorted(suite)[::20], (0, 1, 2, 512), (0,)):
        assert found({step: suite[step] for step in steps}) == ()


def test_sampled_distances_are_those_of_all_weights(suite: Suite) -> None:
    """Within three of the errors that a sample of this size has."""

    def whole(step: int) -> dict[str, np.ndarray]:
        checkpoint = RawCheckpoint.open(LocalFiles(shared(f"{RUN}/global_step{step}")))
        return {name: checkpoint.read(tensor).astype(float) for name, tensor in checkpoint.ranks[0].items()}

    chosen = {step: suite[step] for step in (0, 1000, 143000)}
    trajectory = Trajectory(chosen)
    steps = {step: whole(step) for step in chosen}
    matrices = [name for name, array in steps[0].items() if array.ndim == 2]
    typical = {name: np.median([np.sqrt(np.square(each[name]).mean()) for each in steps.values()]) for name in matrices}
    for row, one in enumerate(chosen):
        for column, another in enumerate(chosen):
            squares = [np.square((steps[one][n] - steps[another][n]) / typical[n]).mean() for n in matrices]
            exact = np.sqrt(np.mean(squares))
            assert trajectory.distance(row, column) == pytest.approx(exact, rel=4 * trajectory.error)


@pytest.mark.parametrize("seed", range(4))
def test_repeats_are_found_in_whatever_order_steps_come(suite: Suite, other: Suite, seed: int) -> None:
    """A release meets its steps as they are made; what is wrong with two of them does not depend on that."""
    steps = {step: suite[step] for step in (0, 1, 2, 64, 512, 1000, 5000, 6000, 90000, 143000)}
    steps |= {1000: suite[512], 2000: suite[512], 6000: other[6000], 7000: other[6000]}
    steps[90000] = changed(suite[90000], MATRIX, lambda _: suite[5000][MATRIX])
    steps[143000] = changed(suite[143000], MATRIX, zeroed)
    wanted = release(equal=(0, 1, 64))
    whole = repeats(steps, wanted)
    assert {each.kind for each in whole} == {REPEAT, SHARED, NOT_EQUAL, FLAT}
    assert [each.steps for each in whole if each.kind == REPEAT] == [
        (512, 1000),
        (512, 2000),
        (1000, 2000),
        (6000, 7000),
    ]
    seen, met = Repeats(wanted), list[LineageFinding]()
    for step in random.Random(seed).sample(sorted(steps), len(steps)):
        met += seen.findings(step, steps[step])
        seen.add(step, steps[step])
    assert sorted(met, key=whole.index) == whole


@pytest.mark.parametrize("pair", [(5000, 6000), (512, 1000), (100000, 101000), (16, 32), (142000, 143000)])
def test_neighbours_that_were_swapped_are_both_named(suite: Suite, pair: tuple[int, int]) -> None:
    one, two = pair
    findings = found({**suite, one: suite[two], two: suite[one]})
    assert [each.steps for each in findings if each.kind == OUT_OF_ORDER] == [pair]


def test_distant_steps_that_were_swapped_are_named(suite: Suite) -> None:
    findings = found({**suite, 4000: suite[90000], 90000: suite[4000]})
    assert {each.steps for each in findings} == {(4000,), (90000,)}
    assert "would fit after step 89,000 and before step 91,000" in findings[0].detail


@pytest.mark.parametrize("step", [2, 64, 512, 5000, 100000])
def test_another_runs_step_is_named(suite: Suite, other: Suite, step: int) -> None:
    findings = found({**suite, step: other[step]})
    assert [(each.kind, each.steps) for each in findings] == [(OUT_OF_ORDER, (step,))]
    assert len(findings[0].tensors) == 10


def test_the_last_step_of_another_run_is_a_jump(suite: Suite, other: Suite) -> None:
    findings = found({**suite, 143000: other[143000]})
    assert [(each.kind, each.steps) for each in findings] == [(JUMP, (143000,))]


def test_steps_that_do_not_descend_from_step_0_are_a_jump(suite: Suite, other: Suite) -> None:
    """pythia#203: weight-seed runs whose later steps come from another step 0."""
    findings = found({**suite, 0: other[0]}, release(equal=()))
    assert [(each.kind, each.steps) for each in findings] == [(JUMP, (1,))]
    findings = found({**suite, **{step: each for step, each in other.items() if step >= 5000}})
    assert [(each.kind, each.steps) for each in findings] == [(JUMP, (5000,))]
    assert found({**suite, **{s: each for s, each in other.items() if s >= 5000}}, release(5000)) == ()


def test_repeats_are_named_unless_declared(suite: Suite) -> None:
    assert [(each.kind, each.steps) for each in found(suite, release(equal=()))] == [(REPEAT, (0, 1))]
    findings = found({**suite, 7000: suite[90000]})
    assert {(each.kind, each.steps) for each in findings} == {(REPEAT, (7000, 90000)), (OUT_OF_ORDER, (7000,))}


def test_a_declared_equality_that_does_not_hold_is_named(suite: Suite) -> None:
    findings = found(suite, release(equal=(1, 2)))
    assert {(each.kind, each.steps) for each in findings} == {(REPEAT, (0, 1)), (NOT_EQUAL, (1, 2))}


def test_flipped_signs_of_zeros_are_named(suite: Suite) -> None:
    flipped = changed(suite[1], BIAS, lambda each: replace(each, digest="f" * 32))
    findings = found({**suite, 1: flipped})
    assert [(each.kind, each.steps, each.tensors) for each in findings] == [(NOT_EQUAL, (0, 1), (BIAS,))]
    assert "in the sign of zeros" in findings[0].detail
    findings = found({**suite, 1: flipped}, release(equal=()))
    assert [(each.kind, each.tensors) for each in findings] == [(REPEAT_ZEROS, (BIAS,))]


def test_an_exchanged_shard_is_named_with_its_tensors(suite: Suite) -> None:
    """pythia#206: the first shard of the final model in an earlier step."""
    shard = list(suite[0])[:14]
    mixed = {**suite[7000], **{name: suite[143000][name] for name in shard}}
    findings = found({**suite, 7000: mixed})
    shares = next(each for each in findings if each.kind == SHARED)
    assert shares.steps == (7000, 143000)
    assert set(shares.tensors) == {name for name in shard if suite[0][name].matrix}
    assert {each.steps for each in findings if each.kind == OUT_OF_ORDER} == {(7000,)}


def test_one_foreign_matrix_is_named(suite: Suite, other: Suite) -> None:
    findings = found({**suite, 7000: {**suite[7000], MATRIX: other[7000][MATRIX]}})
    assert [(each.kind, each.steps, each.tensors) for each in findings] == [(OUT_OF_ORDER, (7000,), (MATRIX,))]


@pytest.mark.parametrize("name", [MATRIX, BIAS])
@pytest.mark.parametrize("step", [7000, 143000])
def test_a_zeroed_tensor_is_named(suite: Suite, step: int, name: str) -> None:
    findings = found({**suite, step: changed(suite[step], name, zeroed)})
    assert (FLAT, (step,), (name,)) in [(each.kind, each.steps, each.tensors) for each in findings]
    assert {each.steps for each in findings} == {(step,)}


def test_sample_indices_are_spread_ascending_and_fixed() -> None:
    for elements, count in ((1, 5), (16, 16), (17, 16), (1000, 64), (6_438_912, 157)):
        indices = sample_indices(elements, count)
        assert len(indices) == min(elements, count)
        assert (np.diff(indices) > 0).all()
        assert indices.max(initial=0) < elements
    assert sample_indices(1000, 4).tolist() == [154, 309, 713, 868]
