"""A random model, split by the tests' own writer over any number of ranks, is converted back bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publish.convert.plan import make_plan
from publish.convert.writer import write_weights
from publish.errors import ConversionError
from tests.convert.rawmodel import (
    LLAMA,
    MISTRAL,
    NEOX,
    Case,
    checkpoint_of,
    config_of,
    hf_model,
    raw_of,
    split,
    written_arrays,
)

NEOX_NETWORKS = st.builds(
    lambda parallel, shared, tied: replace(
        NEOX, parallel_residual=parallel, shared_norm=parallel and shared, tied=tied
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
LLAMA_NETWORKS = st.builds(
    lambda kv, tied: replace(LLAMA, heads=8, kv_heads=kv, tied=tied), st.sampled_from([8, 4]), st.booleans()
)
MISTRAL_NETWORKS = st.just(replace(MISTRAL, heads=8, kv_heads=4))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    network = draw(st.one_of(NEOX_NETWORKS, LLAMA_NETWORKS, MISTRAL_NETWORKS))
    return Case(
        network,
        legacy_mlp=draw(st.booleans()),
        tensor_parallel=draw(st.sampled_from([1, 2, 4])),
        dtype=draw(st.sampled_from(["float16", "bfloat16", "float32"])),
        attention_biases=network.sliding_window is None and draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@given(cases())
@settings(max_examples=60, deadline=None)
def test_split_then_converted_is_the_same_bits(case: Case) -> None:
    model, raw = raw_of(case)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(raw, make_plan(raw, config_of(case)), Path(folder))
        assert written_arrays(Path(folder)) == {name: array.tobytes() for name, array in model.items()}


def test_all_parallel_sizes_give_one_file(tmp_path: Path) -> None:
    written = set()
    for ranks in (1, 2, 4):
        case = Case(replace(NEOX, parallel_residual=False), tensor_parallel=ranks)
        _, raw = raw_of(case)
        written.add(write_weights(raw, make_plan(raw, config_of(case)), tmp_path).files)
    assert len(written) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_row_parallel_biases_are_summed_in_float32(dtype: str, tmp_path: Path) -> None:
    case = Case(NEOX, tensor_parallel=4, dtype=dtype)
    ranks = split(case, hf_model(case))
    random = np.random.default_rng(1)
    name = "layers.0.mlp.linear2.bias"
    shares = random.standard_normal((4, 16)).astype("<f4")
    if dtype == "bfloat16":
        import torch

        exact = torch.tensor(shares).bfloat16()
        bits, expected = exact.view(torch.uint16).numpy(), exact.float().sum(0).bfloat16().view(torch.uint16).numpy()
    else:
        bits = shares.astype("<f2")
        expected = (((bits[0].astype("<f4") + bits[1]) + bits[2]) + bits[3]).astype("<f2")
    for rank, arrays in enumerate(ranks):
        arrays[name] = bits[rank]
    raw = checkpoint_of(ranks, dtype)
    write_weights(raw, make_plan(raw, config_of(case)), tmp_path)
    assert written_arrays(tmp_path)["gpt_neox.layers.0.mlp.dense_4h_to_h.bias"] == expected.tobytes()


def test_a_bias_of_minus_zero_on_one_rank_stays(tmp_path: Path) -> None:
    case = Case(NEOX)
    ranks = split(case, hf_model(case))
    ranks[0]["layers.1.attention.dense.bias"] = np.full(16, -0.0, "<f2")
    raw = checkpoint_of(ranks, case.dtype)
    write_weights(raw, make_plan(raw, config_of(case)), tmp_path)
    assert written_arrays(tmp_path)["gpt_neox.layers.1.attention.dense.bias"] == b"\0\x80" * 16


def test_norms_that_differ_between_ranks_are_refused(tmp_path: Path) -> None:
    case = Case(NEOX, tensor_parallel=2)
    ranks = split(case, hf_model(case))
    ranks[1]["layers.1.input_layernorm.bias"] = ranks[1]["layers.1.input_layernorm.bias"] + np.float16(1)
    raw = checkpoint_of(ranks, case.dtype)
    with pytest.raises(ConversionError, match=r"layers\.1\.input_layernorm\.bias differs between ranks 0 and 1"):
        write_weights(raw, make_plan(raw, config_of(case)), tmp_path)
    assert list(tmp_path.iterdir()) == []
