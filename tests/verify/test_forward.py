"""Our forward pass against the logits that GPT-NeoX computed, and against itself with other numbers of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import Network
from publish.verify import neox_forward
from publish.verify.neox_forward import Arithmetic, logit_blocks
from tests.conftest import arrays, shared
from tests.convert.rawmodel import LLAMA, MISTRAL, NEOX, Case, checkpoint_of, hf_model, raw_of, split
from tests.verify.faults import raw_case

CASES = [
    "legacy_llama_pipe",
    "legacy_pythia_pipe_zero1",
    "legacy_pythia_seq",
    "llama_gqa_seq",
    "llama_mha_seq",
    "mistral_gqa_pipe",
    "neox_gptj_tied",
    "neox_variants_relu",
    "pythia_pipe",
    "pythia_pipe_pp2",
    "pythia_pipe_tp2",
    "pythia_pipe_zero1_dp2",
    "pythia_seq",
    "pythia_seq_bf16",
    "serial_pipe_tp2",
    "serial_seq",
    "tied_seq",
]
RECOMPUTED = {"legacy_llama_pipe": 1e-3, "legacy_pythia_pipe_zero1": 1e-5, "legacy_pythia_seq": 1e-5}
SUITE = [(run, step) for run in ("pythia-tiny-seed1234", "pythia-tiny-seed1") for step in (0, 1, 512, 1000, 143000)]
STORED = Arithmetic(stored_frequencies=True)


def neox_logits(
    checkpoint: RawCheckpoint,
    network: Network,
    tokens: np.ndarray,
    arithmetic: Arithmetic = Arithmetic(),  # noqa: B008  frozen
) -> torch.Tensor:
    return torch.cat(list(logit_blocks(checkpoint, network, tokens, arithmetic)), dim=-1)


def difference(folder: Path, known: Path, arithmetic: Arithmetic) -> float:
    raw, config = raw_case(folder)
    numbers = arrays(known)
    logits = neox_logits(raw, config.network, numbers["tokens"].astype(np.int64), arithmetic)
    return float(np.abs(logits.numpy() - numbers["logits_fp32"]).max())


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_gpt_neox(case: str) -> None:
    folder = shared(f"neox/{case}")
    assert difference(folder / "global_step16", folder / "logits.npz", STORED) <= 5e-6
    recomputed = difference(folder / "global_step16", folder / "logits.npz", Arithmetic())
    assert recomputed <= RECOMPUTED.get(case, 5e-6)
    assert difference(folder / "global_step16", folder / "logits.npz", replace(STORED, dtype="float64")) <= 5e-6


@pytest.mark.parametrize(("run", "step"), SUITE)
def test_the_suite(run: str, step: int) -> None:
    known = shared(f"suite/logits/{run}_step{step}.npz")
    assert difference(shared(f"suite/{run}/global_step{step}"), known, STORED) <= 2e-5


def test_pythia_14m(real14m: Path) -> None:
    raw, config = raw_case(real14m)
    numbers = arrays(shared("real14m/logits_step0.npz"))
    for arithmetic, bound in ((STORED, 5e-6), (Arithmetic(), 6e-5)):
        logits = neox_logits(raw, config.network, numbers["tokens"].astype(np.int64), arithmetic)
        assert np.abs(logits[:, -4:].numpy() - numbers["logits_fp32_last4"]).max() <= bound


NETWORKS = {
    "parallel": Case(NEOX),
    "serial": Case(replace(NEOX, parallel_residual=False)),
    "serial-no-attention-bias": Case(replace(NEOX, parallel_residual=False), attention_biases=False),
    "shared-norm": Case(replace(NEOX, shared_norm=True)),
    "tied-legacy": Case(replace(NEOX, tied=True), legacy_mlp=True),
    "llama": Case(LLAMA, attention_biases=False),
    "llama-legacy": Case(LLAMA, legacy_mlp=True, attention_biases=False),
    "grouped": Case(replace(LLAMA, heads=8, kv_heads=4), attention_biases=False),
    "window": Case(MISTRAL, attention_biases=False),
}
TOKENS = np.arange(32, dtype=np.int64).reshape(2, 16) % 24


def logits_of(case: Case, arithmetic: Arithmetic = Arithmetic()) -> torch.Tensor:  # noqa: B008  frozen
    return neox_logits(raw_of(case)[1], case.network, TOKENS, arithmetic)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_do_not_depend_on_the_number_of_ranks(name: str) -> None:
    case = NETWORKS[name]
    whole = logits_of(case, Arithmetic(dtype="float64"))
    for ranks in (2, 4):
        parts = logits_of(replace(case, tensor_parallel=ranks), Arithmetic(dtype="float64"))
        assert torch.allclose(parts, whole, rtol=1e-10, atol=1e-10)


def test_biases_of_all_ranks_add_up_only_with_the_parallel_residual() -> None:
    bias = "layers.0.attention.dense.bias"
    for parallel in (True, False):
        case = Case(replace(NEOX, parallel_residual=parallel), tensor_parallel=2, dtype="float32")
        ranks = split(case, hf_model(case))
        before = neox_logits(checkpoint_of(ranks, "float32"), case.network, TOKENS)
        ranks[1][bias] = ranks[1][bias] + np.float32(1)
        after = neox_logits(checkpoint_of(ranks, "float32"), case.network, TOKENS)
        assert torch.equal(before, after) != parallel


def test_sums_of_biases_are_rounded_once() -> None:
    case = Case(NEOX, tensor_parallel=2)
    ranks = split(case, hf_model(case))
    bias = "layers.1.mlp.linear2.bias"
    ranks[1][bias] = ranks[1][bias] + np.float16(1e-4)
    exact = neox_logits(checkpoint_of(ranks, "float16"), case.network, TOKENS)
    held = neox_logits(checkpoint_of(ranks, "float16"), case.network, TOKENS, Arithmetic(rounded_to="float16"))
    ranks[0][bias], ranks[1][bias] = ranks[0][bias] + ranks[1][bias], np.zeros_like(ranks[1][bias])
    merged = neox_logits(checkpoint_of(ranks, "float16"), case.network, TOKENS)
    assert torch.equal(held, merged)
    assert not torch.equal(exact, merged)


def test_blocks_of_rows_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = logits_of(Case(NEOX), Arithmetic(dtype="float64"))
    monkeypatch.setattr(neox_forward, "BLOCK", 64)
    assert torch.allclose(logits_of(Case(NEOX), Arithmetic(dtype="float64")), whole, rtol=1e-12, atol=1e-12)


def test_a_window_masks_earlier_positions() -> None:
    case = Case(replace(MISTRAL, layers=1, sliding_window=3), attention_biases=False)
    raw = raw_of(case)[1]
    changed = TOKENS.copy()
    changed[:, 0] += 1
    before, after = (neox_logits(raw, case.network, tokens) for tokens in (TOKENS, changed))
    differs = (before != after).any(-1).any(0).tolist()
    assert differs == [position <= 3 for position in range(16)]


def test_an_epsilon_outside_the_root_is_another_network() -> None:
    small = Case(replace(LLAMA, norm_epsilon=1e-2), attention_biases=False)
    outside = replace(small, network=replace(small.network, epsilon_outside_root=True))
    assert not torch.allclose(logits_of(small), logits_of(outside), rtol=1e-4)


def test_a_missing_tensor_and_an_unknown_activation_are_named() -> None:
    raw = raw_of(Case(replace(NEOX, tied=True)))[1]
    with pytest.raises(GateError, match=r"unembedding\.weight of rank 0"):
        neox_logits(raw, NEOX, TOKENS)
    with pytest.raises(GateError, match="'cubic'"):
        neox_logits(raw, replace(NEOX, activation="cubic"), TOKENS)
    with pytest.raises(GateError, match="do not fit"):
        neox_logits(raw, replace(NEOX, heads=2, kv_heads=1), TOKENS)
    with pytest.raises(ValueError, match="a token is 24"):
        neox_logits(raw, NEOX, TOKENS + 1)
