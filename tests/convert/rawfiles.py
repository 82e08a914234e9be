"""Checkpoints on disk as GPT-NeoX writes them: both layouts, any number of ranks and stages, through ``torch.save``.

File names and contents follow DeepSpeed's ``save_checkpoint`` with GPT-NeoX's ``GPT2ModelPipe``: layer files 00,
02 to L+1, L+3, and L+4 for an untied model; ``mp_rank`` files, one per rank and stage, with the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.convert.rawmodel import Arrays, Case, hf_model, split

SEQUENTIAL = 0


def write(folder: Path, case: Case, *, stages: int = SEQUENTIAL, step: int = 16, zero: bool = False) -> Arrays:
    """Write ``case`` into ``folder``; the Hugging Face model it was made from. ``stages`` 0: the sequential layout.

    ``zero``: the optimizer's shards lie beside the model, as with ZeRO stage 1 over two data-parallel ranks.
    """
    model = hf_model(case)
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "model.yml").write_text(json.dumps(options_of(case, stages)))
    ranks = split(case, model)
    for rank, arrays in enumerate(ranks):
        by_place = _by_place(case, arrays)
        if stages == SEQUENTIAL:
            module = {f"sequential.{place}.{name}": t for place, local in by_place.items() for name, t in local.items()}
            torch.save(_state(case, step, module), folder / f"mp_rank_{rank:02}_model_states.pt")
            continue
        for place, tensors in by_place.items():
            torch.save(tensors, folder / f"layer_{place:02}-model_{rank:02}-model_states.pt")
    if stages != SEQUENTIAL:
        for number in range(stages * case.tensor_parallel):
            torch.save(_state(case, step, None), folder / f"mp_rank_{number:02}_model_states.pt")
    if zero:
        for rank in range(case.tensor_parallel):
            for data in range(2):
                name = f"bf16_zero_pp_rank_{data}_mp_rank_{rank:02}_optim_states.pt"
                (folder / name).write_bytes(b"never read")
    return model


def options_of(case: Case, stages: int) -> dict[str, Any]:
    """The run's YAML."""
    net = case.network
    gated = {"activation": "swiglu", "intermediate-size": 3 * case.intermediate} if case.llama else {}
    return {
        "pipe-parallel-size": stages,
        "model-parallel-size": case.tensor_parallel,
        "num-layers": net.layers,
        "hidden-size": net.hidden,
        "num-attention-heads": net.heads,
        "num-kv-heads": net.kv_heads,
        "seq-length": net.context,
        "max-position-embeddings": net.context,
        "norm": net.norm,
        "layernorm-epsilon" if net.norm == "layernorm" else "rms_norm_epsilon": net.norm_epsilon,
        "pos-emb": "rotary",
        "rotary-pct": net.rotary_fraction,
        "rotary-emb-base": net.rotary_base,
        "no-weight-tying": not net.tied,
        "gpt-j-residual": net.parallel_residual,
        "gpt-j-tied": net.shared_norm,
        "use_bias_in_attn_linear": case.attention_biases,
        "use_bias_in_mlp": not case.llama,
        "bias-gelu-fusion": net.activation == "gelu_tanh",
        "sliding-window-width": net.sliding_window,
        "make_vocab_size_divisible_by": 1,
        "precision": {"float16": "fp16", "bfloat16": "bfloat16", "float32": "fp32"}[case.dtype],
        **({"intermediate-size": case.intermediate} if not case.llama else gated),
    }


def _by_place(case: Case, arrays: Arrays) -> dict[int, dict[str, torch.Tensor]]:
    layers = case.network.layers
    places: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(".")
        if first == "layers":
            number, _, local = rest.partition(".")
            place = int(number) + 2
        else:
            place, local = {
                "embedding": (0, "word_embeddings.weight"),
                "final_norm": (layers + 3, f"norm.{rest}"),
                "unembedding": (layers + 4, "final_linear.weight"),
            }[first]
        places.setdefault(place, {})[local] = _tensor(array, case.dtype)
    return dict(sorted(places.items()))


def _tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    copied = torch.from_numpy(np.array(array.view("<i2") if dtype == "bfloat16" else array))
    return copied.view(torch.bfloat16) if dtype == "bfloat16" else copied


def _state(case: Case, step: int, module: Mapping[str, torch.Tensor] | None) -> dict[str, Any]:
    net = case.network
    return {
        "module": module,
        "optimizer": {"cur_scale": 4096.0, "param_groups": [{"lr": 0.001, "params": [0]}]},
        "skipped_steps": 0,
        "global_steps": step,
        "dp_world_size": 2,
        "ds_version": "0.9.5",
        "iteration": step,
        "args": {
            "num_layers": net.layers,
            "hidden_size": net.hidden,
            "num_attention_heads": net.heads,
            "max_position_embeddings": net.context,
            "padded_vocab_size": case.vocabulary,
            "model_parallel_size": case.tensor_parallel,
        },
        "torch_rng_state": torch.get_rng_state(),
        "rng_tracker_states": {"model-parallel-rng": torch.Generator().manual_seed(2718).get_state()},
    }
