"""Real initialisations are explained to the last value; a changed one is not, and the tensor is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from publish.cards.sentences import drawn_before
from publish.explain.explain import Answer, explain_location
from publish.neox.state import CPU
from publish.sources.runs import Location
from tests.conftest import shared
from tests.explain.neoxfiles import Drawn, Model, on_cpu, on_cpu_in_stages


def ask(folder: Path, step: int | None = None, seeds: Sequence[int] | None = None) -> Answer:
    return explain_location(Location(folder), step, seeds)


def assert_reproduced(answer: Answer, seed: int, position: int, stored: str = "equal") -> None:
    found = answer.explanation
    assert found.outcome == "reproduced", answer.reasons
    assert found.bit_equal == found.within_one_ulp == found.values
    assert found.rng_state is not None
    assert (found.rng_state.seed, found.rng_state.position) == (seed, position)
    assert found.stored_state == stored


def test_the_real_14m_is_its_seeds_second_construction(real14m: Path) -> None:
    answer = ask(real14m)
    found = answer.explanation
    assert_reproduced(answer, 1234, 14_057_472)
    assert (found.tensors, found.values) == (26, 14_057_472)
    assert found.rng_state is not None
    assert (found.rng_state.generator, found.rng_state.seeds) == (CPU, (3952,))
    assert "to_sequential() builds every layer again" in drawn_before(found)


@pytest.mark.parametrize(("run", "seed"), [("pythia-tiny-seed1234", 1234), ("pythia-tiny-seed1", 1)])
def test_both_runs_of_the_suite(run: str, seed: int) -> None:
    answer = ask(shared(f"suite/{run}"), 0)
    found = answer.explanation
    assert_reproduced(answer, seed, 14_336)
    assert (found.tensors, found.values) == (10, 14_336)


def test_the_sample_run_also_at_step_1_where_nothing_was_learned_yet(samples: Path) -> None:
    assert_reproduced(ask(samples, 1), 1234, 14_336)


def test_a_trained_step_is_not_explained_and_its_stored_state_is(samples: Path) -> None:
    answer = ask(samples, 143_000)
    found = answer.explanation
    assert (found.outcome, found.rng_state, found.bit_equal) == (
        "not-reproduced",
        None,
        0,
    )
    assert found.stored_state == "equal"
    assert "trained for 143,000 iterations" in answer.reasons[0]
    assert "seeded with 3952 after 2 constructions" in answer.reasons[1]


Change = Callable[[dict[str, torch.Tensor]], None]
QKV, DENSE = "3.attention.query_key_value.weight", "2.attention.dense.weight"


def one_value(name: str, index: int) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1).view(torch.int16)[index] ^= 1

    return change


def exchange(tensors: dict[str, torch.Tensor]) -> None:
    first, second = "2.mlp.linear1.weight", "3.mlp.linear1.weight"
    tensors[first], tensors[second] = tensors[second], tensors[first]


def other(name: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = torch.empty_like(tensors[name]).normal_(0, float(tensors[name].float().std()))

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (one_value("0.word_embeddings.weight", 0), ["embedding.weight"]),
        (one_value("0.word_embeddings.weight", 777), ["embedding.weight"]),
        (one_value(QKV, 5), ["layers.1.attention.query_key_value.weight"]),
        (one_value("6.final_linear.weight", 8191), ["unembedding.weight"]),
        (exchange, ["layers.0.mlp.linear1.weight", "layers.1.mlp.linear1.weight"]),
        (other("0.word_embeddings.weight"), ["embedding.weight"]),
        (other(DENSE), ["layers.0.attention.dense.weight"]),
    ],
)
def test_one_change_is_found_and_its_tensor_named(tmp_path: Path, change: Change, named: list[str]) -> None:
    drawn = on_cpu(Model())
    change(drawn.ranks[0])
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert found.outcome == "partly"
    assert [result.name for result in answer.results if not result.explained] == named
    for name in named:
        assert any(reason.startswith(f"{name}") for reason in answer.reasons), answer.reasons
    swapped = [reason for reason in answer.reasons if "begins as what is drawn for" in reason]
    assert len(swapped) == (2 if change is exchange else 0)
    assert found.stored_state == "equal"


def test_one_seed_off_explains_nothing(tmp_path: Path) -> None:
    folder = on_cpu(Model()).write(tmp_path / "step0")
    answer = ask(folder, seeds=[1235])
    found = answer.explanation
    assert (found.outcome, found.rng_state, found.bit_equal) == (
        "not-reproduced",
        None,
        0,
    )
    text = " ".join(answer.reasons)
    assert "embedding.weight" in text
    assert "seed 1235 (as requested)" in text


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_every_layout_parallelism_and_tying(tmp_path: Path, sequential: bool, ranks: int, tied: bool) -> None:
    model = Model(sequential=sequential, tensor_parallel=ranks, tied=tied)
    answer = ask(on_cpu(model).write(tmp_path / "step0"))
    found = answer.explanation
    size = sum(rows * columns for _, (rows, columns), _ in model.drawn())
    assert_reproduced(answer, 1234, size if sequential else 0)
    assert found.rng_state is not None
    assert found.rng_state.seeds == tuple(3952 + rank for rank in range(ranks))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("skip", [0, 1, 4096, 100_003])
def test_any_amount_drawn_before_is_found(tmp_path: Path, dtype: str, skip: int) -> None:
    drawn = on_cpu(Model(sequential=False, dtype=dtype), skip=skip)
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert_reproduced(answer, 1234, skip)
    assert found.rng_state is not None
    neither = "neither a whole number"
    expected = {0: "nothing", 1: neither, 4096: "as much as the tensor", 100_003: neither}
    assert expected[skip] in drawn_before(found)


def test_a_first_construction_in_the_sequential_layout_leaves_another_state(tmp_path: Path) -> None:
    once, twice = on_cpu(Model(), constructions=1), on_cpu(Model())
    answer = ask(Drawn(once.model, once.ranks, twice.states).write(tmp_path / "step0"))
    assert_reproduced(answer, 1234, 0, stored="different")
    assert any(reason.startswith("mp_rank_00 stores") for reason in answer.reasons), answer.reasons


def test_the_configs_seed_is_tried_if_no_state_is_stored(tmp_path: Path) -> None:
    drawn = on_cpu(Model(seed=7))
    folder = Drawn(drawn.model, drawn.ranks, [None]).write(tmp_path / "step0")
    assert_reproduced(ask(folder), 7, sum(r * c for _, (r, c), _ in drawn.model.drawn()), stored="absent")


def test_a_seed_is_found_in_a_range(tmp_path: Path) -> None:
    drawn = on_cpu(Model(seed=4321))
    folder = Drawn(drawn.model, drawn.ranks, [None]).write(tmp_path / "step0")
    answer = ask(folder, seeds=range(4000, 5000))
    assert_reproduced(answer, 4321, sum(r * c for _, (r, c), _ in drawn.model.drawn()), stored="absent")


def test_init_methods_that_are_not_recomputed_are_refused_by_name(tmp_path: Path, samples: Path) -> None:
    from publish.errors import ConfigError

    for method in ("orthogonal", "xavier_uniform", "unheard_of"):
        folder = tmp_path / method
        shutil.copytree(samples / "global_step0", folder)
        for path in (folder / "configs").iterdir():
            path.write_text(path.read_text().replace("small_init", method))
        with pytest.raises(ConfigError, match=method):
            ask(folder)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("begins", [(0, 5), (0, 5, 9), (0, 1, 5, 9)])
def test_pipeline_stages_with_their_own_generators_are_found(
    tmp_path: Path, ranks: int, tied: bool, begins: tuple[int, ...]
) -> None:
    model = Model(layers=3, sequential=False, tensor_parallel=ranks, tied=tied, stages=len(begins))
    answer = ask(on_cpu_in_stages(model, begins).write(tmp_path / "step0"))
    assert_reproduced(answer, 1234, 0)
    assert any("pipeline stages with a freshly seeded generator" in reason for reason in answer.reasons)


@pytest.mark.parametrize("kind", ["llama-2023", "llama-2026"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_llama_in_both_eras(tmp_path: Path, kind: str, ranks: int) -> None:
    model = Model(kind=kind, kv_heads=2, tensor_parallel=ranks, sequential=False)
    assert_reproduced(ask(on_cpu(model).write(tmp_path / "step0")), 1234, 0)


def test_without_a_config_the_weights_reveal_the_methods(tmp_path: Path) -> None:
    folder = on_cpu(Model()).write(tmp_path / "step0")
    shutil.rmtree(folder / "configs")
    assert_reproduced(ask(folder), 1234, sum(r * c for _, (r, c), _ in Model().drawn()))


def test_a_tensor_that_is_not_a_matrix_of_floats_is_an_error(tmp_path: Path) -> None:
    from publish.errors import CheckpointError

    for number, wrong in enumerate((torch.zeros(5), torch.zeros(0, 32), torch.zeros(4, 4, dtype=torch.int64))):
        drawn = on_cpu(Model())
        drawn.ranks[0][DENSE] = wrong
        with pytest.raises(CheckpointError, match=r"attention\.dense\.weight must be a matrix of floats"):
            ask(drawn.write(tmp_path / str(number)))


def test_a_matrix_of_no_known_kind_leaves_the_rest_explained(tmp_path: Path) -> None:
    drawn = on_cpu(Model())
    drawn.ranks[0]["0.position_embeddings.weight"] = torch.randn(32, 32).half()
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert (found.outcome, found.tensors) == ("partly", 11)
    assert any(reason.startswith("position_embedding.weight is not in the table") for reason in answer.reasons)


def test_use_cpu_initialization_draws_from_the_default_generator(tmp_path: Path) -> None:
    drawn = on_cpu(Model(seed=1234 - 2718))  # so that the generator is seeded with 1234 itself
    untouched = torch.Generator().manual_seed(3952).get_state().numpy().tobytes()
    folder = Drawn(Model(), drawn.ranks, [untouched]).write(tmp_path / "step0")
    answer = ask(folder)
    found = answer.explanation
    assert_reproduced(answer, 1234, sum(r * c for _, (r, c), _ in Model().drawn()), stored="absent")
    assert found.rng_state is not None
    assert found.rng_state.seeds == (1234,)
    assert any("use_cpu_initialization" in reason for reason in answer.reasons)


@pytest.mark.parametrize("method", ["normal", "scaled_normal", "single_residual_scaled_normal", "xavier_normal"])
def test_the_other_normal_methods(tmp_path: Path, method: str) -> None:
    """Each for both kinds of layers, its standard deviation worked out here."""
    model = Model()

    def std(shape: tuple[int, int]) -> float:
        return {
            "normal": 0.02,
            "scaled_normal": 0.02 / (2.0 * 2) ** 0.5,
            "single_residual_scaled_normal": 0.02 / 2**0.5,
            "xavier_normal": (2.0 / (shape[0] + shape[1])) ** 0.5,
        }[method]

    generator = torch.Generator().manual_seed(3952)
    for _ in range(2):
        tensors = {n: torch.empty(s).half().normal_(0, std(s), generator=generator) for n, s, _ in model.drawn()}
    folder = Drawn(model, [tensors], [generator.get_state().numpy().tobytes()]).write(tmp_path / "step0")
    config = folder / "configs" / "run.yml"
    config.write_text(config.read_text().replace("small_init", method).replace("wang_init", method))
    assert_reproduced(ask(folder), 1234, sum(r * c for _, (r, c), _ in model.drawn()))


def test_last_bits_of_another_processor_are_reported_and_not_called_reproduced(tmp_path: Path) -> None:
    drawn = on_cpu(Model(dtype="float32"))
    for tensor in drawn.ranks[0].values():
        tensor.view(-1).view(torch.int32)[::7] ^= 1
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert (found.outcome, found.stored_state) == ("partly", "equal")
    assert found.within_one_ulp == found.values
    assert any("kinds of processors" in reason for reason in answer.reasons)
