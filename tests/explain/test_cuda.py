"""What a GPU drew is recognised: its generator's seed and offset, its threads, in every dtype and parallelism."""

from __future__ import annotations

from pathlib import Path

import pytest

from publish.cards.sentences import drawn_before
from publish.explain.generators import THREADS
from publish.neox.state import CUDA
from tests.explain.neoxfiles import Drawn, Model, on_gpu
from tests.explain.test_explain import ask

# GPU, run seed, offset before, dtype, ranks: the embedding of every rank is larger than the GPU's threads
CASES = [
    ("T4", 1234, 0, "float16", 1),
    ("T4", 1, 8, "float32", 2),
    ("RTX 2080 Ti", 4321, 160, "float32", 1),
    pytest.param("A40", 1234, 0, "float16", 2, marks=pytest.mark.slow),
    pytest.param("V100", 9, 1048, "float16", 1, marks=pytest.mark.slow),
    pytest.param("A100", 1234, 160, "bfloat16", 1, marks=pytest.mark.slow),
]


def big(gpu: str, seed: int, dtype: str, ranks: int) -> Model:
    vocabulary = (-(-THREADS[gpu] // 64 // 128) * 128 + 128) * ranks
    return Model(layers=1, hidden=64, vocabulary=vocabulary, tensor_parallel=ranks, dtype=dtype, seed=seed, tied=True)


@pytest.mark.parametrize(("gpu", "seed", "offset", "dtype", "ranks"), CASES)
@pytest.mark.parametrize("perturb", [None, 5], ids=["exact", "perturbed"])
def test_five_gpus(
    tmp_path: Path, gpu: str, seed: int, offset: int, dtype: str, ranks: int, perturb: int | None
) -> None:
    drawn = on_gpu(big(gpu, seed, dtype, ranks), THREADS[gpu], offset, filler=ranks == 2, perturb=perturb)
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert found.outcome == "reproduced", answer.reasons
    state = found.rng_state
    assert state is not None
    assert (state.generator, state.seed, state.position, state.threads) == (CUDA, seed, offset, THREADS[gpu])
    assert state.seeds == tuple(2718 + seed + rank for rank in range(ranks))
    assert gpu in state.devices
    assert found.stored_state == "equal"
    if dtype != "float32":
        assert found.within_one_ulp > 0.999 * found.values
    if perturb is not None:
        assert found.bit_equal < found.values
        assert any("fast sine and cosine of a GPU" in reason for reason in answer.reasons)


def test_offset_and_threads_without_a_stored_state(tmp_path: Path) -> None:
    drawn = on_gpu(big("T4", 1234, "float16", 1), THREADS["T4"], 48, stored=False)
    answer = ask(drawn.write(tmp_path / "step0"), seeds=range(1000, 2000))
    found = answer.explanation
    assert found.outcome == "reproduced"
    assert found.rng_state is not None
    assert (
        found.rng_state.seed,
        found.rng_state.position,
        found.rng_state.threads,
    ) == (1234, 48, 40_960)
    assert found.stored_state == "absent"


def test_a_small_model_does_not_reveal_the_gpu(tmp_path: Path) -> None:
    answer = ask(on_gpu(Model(sequential=False), 163_840).write(tmp_path / "step0"))
    found = answer.explanation
    assert (found.outcome, found.stored_state) == ("reproduced", "equal")
    assert found.rng_state is not None
    assert (found.rng_state.threads, set(found.rng_state.devices)) == (None, set(THREADS))


@pytest.mark.parametrize("resident", [512, *(pytest.param(n, marks=pytest.mark.slow) for n in (1024, 3840, 8192))])
def test_an_unknown_gpu_is_named_by_its_threads(tmp_path: Path, resident: int) -> None:
    answer = ask(on_gpu(Model(tensor_parallel=2, vocabulary=512, hidden=64), resident, 4).write(tmp_path / "step0"))
    found = answer.explanation
    assert (found.outcome, found.stored_state) == ("reproduced", "equal")
    assert found.rng_state is not None
    assert (found.rng_state.threads, found.rng_state.devices) == (resident, ())


def test_the_sequential_layout_is_the_second_set_on_a_gpu_too(tmp_path: Path) -> None:
    model, resident = Model(hidden=64), 2048
    once = on_gpu(model, resident)
    size = int.from_bytes((once.states[0] or b"")[8:], "little")
    answer = ask(on_gpu(model, resident, size).write(tmp_path / "step0"))
    found = answer.explanation
    assert found.outcome == "reproduced"
    assert found.rng_state is not None
    assert found.rng_state.position == size
    assert "to_sequential() builds every layer again" in drawn_before(found)


@pytest.mark.parametrize("name", ["0.word_embeddings.weight", "2.attention.dense.weight", "6.final_linear.weight"])
@pytest.mark.parametrize("index", [0, 500])
def test_one_changed_value_is_found(tmp_path: Path, name: str, index: int) -> None:
    drawn = on_gpu(Model(), 2048)
    drawn.ranks[0][name].view(-1)[index] += 0.01
    answer = ask(drawn.write(tmp_path / "step0"))
    assert answer.explanation.outcome == "partly"
    assert len([result for result in answer.results if not result.explained]) == 1
    assert any("1 of" in reason and "row" in reason for reason in answer.reasons), answer.reasons


def test_an_exchanged_embedding_leaves_the_rest_explained(tmp_path: Path) -> None:
    drawn = on_gpu(Model(), 2048, 16)
    tensors = drawn.ranks[0]
    tensors["0.word_embeddings.weight"] = tensors["6.final_linear.weight"]
    answer = ask(drawn.write(tmp_path / "step0"))
    found = answer.explanation
    assert found.outcome == "partly"
    assert [result.name for result in answer.results if not result.explained] == ["embedding.weight"]
    assert found.rng_state is not None
    assert found.rng_state.position == 16


def test_the_stored_state_of_another_gpu_is_reported(tmp_path: Path) -> None:
    drawn, other = on_gpu(Model(), 1024), on_gpu(Model(), 2048)
    answer = ask(Drawn(drawn.model, drawn.ranks, other.states).write(tmp_path / "step0"))
    found = answer.explanation
    assert (found.outcome, found.stored_state) == ("reproduced", "different")
    assert "mp_rank_00 stores cuda-philox seeded with 3952 (offset " in answer.reasons[-1]
