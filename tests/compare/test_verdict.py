"""The verdicts on models of GPT-NeoX's initialisation: true ones, faulty ones, and how rarely chance misleads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publish.cards.sentences import sentence
from publish.compare.model import Provenance
from publish.compare.report import Report
from publish.compare.verdict import provenance_reasons
from publish.records.manifest import RngState
from tests.compare.models import SMALL, Arrays, Model, report, save

SEED = 1234
QKV = "gpt_neox.layers.1.attention.query_key_value.weight"
NORM = "gpt_neox.layers.0.input_layernorm.weight"
BIAS = "gpt_neox.layers.1.mlp.dense_4h_to_h.bias"


@pytest.fixture(scope="module")
def pythia_14m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("14m") / "left", Model().draw(SEED))


@pytest.fixture
def against(tmp_path: Path) -> Callable[..., Report]:
    """A small model of one seed against another seed's, changed by a function."""

    def make(change: Callable[[Arrays], Any] = lambda tensors: None, seed: int = 2) -> Report:
        left, right = SMALL.draw(1), SMALL.draw(seed)
        change(right)
        return report(save(tmp_path / "left", left), save(tmp_path / "right", right))

    return make


def test_two_seeds_of_14m_are_the_same_initialisation(pythia_14m: Path, tmp_path: Path) -> None:
    found = report(pythia_14m, save(tmp_path / "right", Model().draw(1)))
    document = found.document()
    assert (document["tensors"], document["bitwise_equal"], document["different"]) == (76, 50, 26)
    assert document["verdict"] == "same-init-different-rng"
    types = {each["name"]: each for each in document["layer_types"]}
    stds = {"embedding": 0.0559, "QKV": 0.0559, "attention dense": 0.0295, "MLP up": 0.0559, "MLP down": 0.0295}
    for name, std in stds.items():
        assert types[name]["left_std"] == pytest.approx(std, abs=2e-4)
        assert abs(types[name]["ratio"] - 1) < found.tests.limit * types[name]["ratio_error"]
    assert "8 L + 2 of 12 L + 4" in document["reasons"][0]
    assert "50 of 76" in document["reasons"][0]


@pytest.mark.parametrize(
    ("end", "kind"),
    [("embed_in", "embedding"), ("query_key_value", "QKV"), ("h_to_4h", "MLP up"), ("4h_to_h", "MLP down")],
)
def test_two_percent_in_one_layer_type_are_named(pythia_14m: Path, tmp_path: Path, end: str, kind: str) -> None:
    off = replace(Model(), factors={end: 1.02})
    found = report(pythia_14m, save(tmp_path / "right", off.draw(5)))
    assert found.verdict.name == "different-init"
    assert [reason.split(":")[0] for reason in found.reasons] == [kind]
    assert "factor 0.98" in found.reasons[0]


def test_a_tenth_of_a_percent_is_not_claimed(pythia_14m: Path, tmp_path: Path) -> None:
    off = replace(Model(), factors={"query_key_value": 1.001})
    assert report(pythia_14m, save(tmp_path / "right", off.draw(5))).verdict.name == "same-init-different-rng"


def test_the_real_14m_against_a_made_one(real14m: Path, tmp_path: Path) -> None:
    found = report(real14m, save(tmp_path / "made", Model().draw(3)))
    assert (found.verdict.name, found.comparison.left.format) == ("same-init-different-rng", "neox")
    predicted = {each.name: each.expected[0] for each in found.tests.types if each.expected[0]}
    assert predicted["embedding"] == predicted["unembedding"] == pytest.approx(0.0559, abs=5e-5)
    assert predicted["attention dense"] == predicted["MLP down"] == pytest.approx(0.0295, abs=5e-5)


def test_the_same_weights(against: Callable[..., Report]) -> None:
    found = against(seed=1)
    assert found.verdict.name == "identical"
    assert found.document()["max_abs_diff"] == {"min": None, "max": None}


def _zeros_flipped(tensors: Arrays) -> None:
    tensors[BIAS] = -tensors[BIAS]


def _as_float32(tensors: Arrays) -> None:
    tensors.update({name: array.astype("f4") for name, array in tensors.items()})


def test_equal_but_for_zeros_names_them(against: Callable[..., Report]) -> None:
    found = against(_zeros_flipped, 1)
    assert found.verdict.name == "equal-up-to-zero-sign"
    assert BIAS in found.reasons[0]


def test_the_same_weights_in_another_dtype_compare_by_value(against: Callable[..., Report]) -> None:
    found = against(_as_float32, 1)
    assert found.verdict.name == "identical"
    assert "dtypes differ (float16 / float32)" in found.reasons[1]


FAULTS: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "a norm that was not set to 1": (lambda t: t.update({NORM: t[NORM] * np.float16(1.1)}), NORM),
    "a bias that is not 0": (lambda t: t[BIAS].__setitem__(3, 0.01), BIAS),
    "a matrix of zeros": (lambda t: t[QKV].fill(0), QKV),
    "a matrix off by a tenth": (lambda t: t.update({QKV: t[QKV] * np.float16(1.1)}), "QKV"),
    "a shifted matrix": (lambda t: t.update({QKV: t[QKV] + np.float16(0.02)}), QKV),
    "one NaN": (lambda t: t[QKV].__setitem__((1, 2), np.nan), f"{QKV} has 1 NaN"),
    "a matrix of the other seed": (lambda t: t.update({QKV: SMALL.draw(1)[QKV]}), QKV),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_initialisation_is_named(against: Callable[..., Report], fault: str) -> None:
    change, name = FAULTS[fault]
    found = against(change)
    assert found.verdict.name == "different-init"
    assert any(name in reason for reason in found.reasons), found.reasons


def test_training_sets_two_models_apart(against: Callable[..., Report]) -> None:
    def train(tensors: Arrays) -> None:
        generator = np.random.default_rng(0)
        for name, array in tensors.items():
            tensors[name] = array + generator.normal(0, 1e-2, array.shape).astype("f2")

    apart = against(train)
    assert apart.verdict.name == "trained-apart"
    assert "left is at initialisation, right is trained" in apart.reasons[0]


def test_a_few_steps_that_leave_norms_alone_are_not_another_initialisation(against: Callable[..., Report]) -> None:
    def nudge(tensors: Arrays) -> None:
        generator = np.random.default_rng(0)
        for name, array in tensors.items():
            if array.ndim == 2:
                tensors[name] = array + generator.normal(0, 1e-3, array.shape).astype("f2")

    found = against(nudge, 1)
    assert found.verdict.name == "trained-apart"
    assert "correlated" in found.reasons[0]


def test_other_tensors_or_shapes_are_not_compared(against: Callable[..., Report]) -> None:
    def other(tensors: Arrays) -> None:
        del tensors["embed_out.weight"]
        tensors["extra.weight"] = np.ones(3, "f2")
        tensors[QKV] = tensors[QKV].T.copy()

    document = against(other, 1).document()
    assert document["verdict"] == "not-comparable"
    assert (document["only_left"], document["only_right"], document["shape_mismatch"]) == (1, 1, 1)
    assert all(name in " ".join(document["reasons"]) for name in ("embed_out.weight", "extra.weight", QKV))


def test_chance_seldom_misleads(tmp_path: Path) -> None:
    """Sixty pairs of seeds; `scripts/bench/verdicts.py` does 200 at full size."""
    size = Model(layers=2, hidden=24, vocabulary=300)
    left = [save(tmp_path / f"left{seed}", size.draw(seed)) for seed in range(12)]
    right = [save(tmp_path / f"right{seed}", size.draw(seed)) for seed in range(100, 105)]
    verdicts = [report(one, other).verdict.name for one in left for other in right]
    assert verdicts.count("same-init-different-rng") >= len(verdicts) - 1


def stating(seed: int | None, proven: int | None = None, digest: str = "", **options: object) -> Provenance:
    """A raw checkpoint whose config states ``seed``, and whose stored random state comes from ``proven``."""
    state = None if proven is None else RngState("cpu-mt19937", proven, (2718 + proven,))
    states = {"tracker:model-parallel-rng": digest} if digest else {}
    return Provenance(options={"seed": seed, **options}, states=states, rng_state=state)


@pytest.mark.parametrize(
    ("left", "right", "sentences"),
    [
        (stating(1, 1, "a"), stating(2, 2, "b"), ["the seeds differ: 1 and 2"]),
        (stating(1), stating(2), ["seed differs: 1 / 2"]),
        (stating(1), stating(1), ["both configs state seed 1"]),
        (stating(1, 1, "a"), stating(1, 1, "a"), ["both models store the same random state of {}, from seed 1"]),
        (stating(1, 1, "a"), stating(1, 1, "b"), ["the stored random states of {} differ"]),
        (
            stating(1, 3, "a"),
            stating(2, 3, "a"),
            [
                "both models store the same random state of {}, from seed 3",
                "the config of left states seed 1, and its random state comes from seed 3",
                "the config of right states seed 2, and its random state comes from seed 3",
            ],
        ),
        (
            stating(1, 1, "a", init_method="small_init"),
            stating(2, 2, "b", init_method="normal"),
            ["the seeds differ: 1 and 2", "init_method differs: small_init / normal"],
        ),
        (Provenance(), Provenance(), []),
    ],
)
def test_a_fact_is_stated_once(left: Provenance, right: Provenance, sentences: list[str]) -> None:
    """By the stored random states where there are any, and then not again by the configs."""
    expected = [text.format("model-parallel-rng") for text in sentences]
    assert [sentence(reason) for reason in provenance_reasons(left, right)] == expected
