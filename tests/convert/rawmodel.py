"""Random raw checkpoints in memory: a Hugging Face model, split as GPT-NeoX would, by arithmetic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from publish.formats.torch_archive import RawTensor
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, Network
from publish.neox.state import TrainingState
from publish.sources.files import check_range

VIEWS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}
Arrays = dict[str, np.ndarray]


class MemoryFile:
    """One file in memory; ``reads`` lists every range that was asked for."""

    def __init__(self, name: str, content: bytes) -> None:
        self.where, self.size, self._content = f"memory/{name}", len(content), content
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        check_range(self, offset, length)

        self.reads.append((offset, length))
        return self._content[offset : offset + length]


class MemoryFiles:
    where = "memory"

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.files = {name: MemoryFile(name, content) for name, content in contents.items()}
        self.sizes = {name: file.size for name, file in self.files.items()}

    @property
    def bytes_read(self) -> int:
        return sum(length for file in self.files.values() for _, length in file.reads)

    def open(self, name: str) -> MemoryFile:
        return self.files[name]

    def prefetch(self, name: str, ranges: list[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def digest(self, name: str) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Case:
    """A model to make: the network, how it is named and split, and its vocabulary and MLP width."""

    network: Network
    legacy_mlp: bool = False
    tensor_parallel: int = 1
    dtype: str = "float16"
    attention_biases: bool = True
    vocabulary: int = 24
    intermediate: int = 32
    seed: int = 0

    @property
    def llama(self) -> bool:
        return self.network.norm == "rmsnorm"


NEOX = Network(
    layers=2,
    hidden=16,
    heads=4,
    kv_heads=4,
    context=32,
    norm="layernorm",
    norm_epsilon=1e-5,
    epsilon_outside_root=False,
    activation="gelu_tanh",
    gated=False,
    parallel_residual=True,
    shared_norm=False,
    tied=False,
    rotary_fraction=0.5,
    rotary_base=10000,
    sliding_window=None,
    initializer_range=0.02,
)
LLAMA = replace(
    NEOX, norm="rmsnorm", activation="silu", gated=True, parallel_residual=False, rotary_fraction=1.0, kv_heads=4
)
MISTRAL = replace(LLAMA, sliding_window=8)


def hf_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Every tensor of the Hugging Face model and its shape."""
    net = case.network
    outer = (
        ("model.embed_tokens", "lm_head", "model.norm")
        if case.llama
        else ("gpt_neox.embed_in", "embed_out", "gpt_neox.final_layer_norm")
    )
    shapes: dict[str, tuple[int, ...]] = {
        f"{outer[0]}.weight": (case.vocabulary, net.hidden),
        f"{outer[2]}.weight": (net.hidden,),
    }
    if not net.tied:
        shapes[f"{outer[1]}.weight"] = (case.vocabulary, net.hidden)
    if not case.llama:
        shapes[f"{outer[2]}.bias"] = (net.hidden,)
    prefix = "model.layers." if case.llama else "gpt_neox.layers."
    layer = _llama_layer(case) if case.llama else _neox_layer(case)
    return shapes | {f"{prefix}{i}.{name}": shape for i in range(net.layers) for name, shape in layer.items()}


def _neox_layer(case: Case) -> dict[str, tuple[int, ...]]:
    hidden, ffn = case.network.hidden, case.intermediate
    norms = ("input_layernorm", "post_attention_layernorm")
    shapes: dict[str, tuple[int, ...]] = {f"{n}.{kind}": (hidden,) for n in norms for kind in ("weight", "bias")}
    for name, rows, columns in (
        ("attention.query_key_value", 3 * hidden, hidden),
        ("attention.dense", hidden, hidden),
        ("mlp.dense_h_to_4h", ffn, hidden),
        ("mlp.dense_4h_to_h", hidden, ffn),
    ):
        shapes[f"{name}.weight"] = (rows, columns)
        if case.attention_biases or name.startswith("mlp"):
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def _llama_layer(case: Case) -> dict[str, tuple[int, ...]]:
    net, ffn = case.network, case.intermediate
    hidden, kv = net.hidden, net.kv_heads * net.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
        shapes[f"self_attn.{name}_proj.weight"] = (rows, hidden)
        if case.attention_biases:
            shapes[f"self_attn.{name}_proj.bias"] = (rows,)
    return shapes


def hf_model(case: Case) -> Arrays:
    """Random numbers under Hugging Face names; none is zero, so that sums keep their sign."""
    random = np.random.default_rng(case.seed)

    def bits(shape: tuple[int, ...]) -> np.ndarray:
        values = random.standard_normal(shape).astype("<f4")
        values[values == 0] = 1
        if case.dtype == "bfloat16":
            return (values.view("<u4") >> 16).astype("<u2")
        return values.astype(VIEWS[case.dtype])

    model = {name: bits(shape) for name, shape in hf_shapes(case).items()}
    if case.network.shared_norm:
        for name in [name for name in model if "post_attention_layernorm" in name]:
            model[name] = model[name.replace("post_attention_layernorm", "input_layernorm")]
    return model


def split(case: Case, model: Arrays) -> list[Arrays]:
    """What each rank of GPT-NeoX holds, by canonical name."""
    ranks: list[Arrays] = []
    for rank in range(case.tensor_parallel):
        ranks.append(_llama_rank(case, model, rank) if case.llama else _neox_rank(case, model, rank))
    return ranks


def _rows(array: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    return np.split(array, ranks)[rank]


def _columns(array: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    return np.ascontiguousarray(np.split(array, ranks, axis=1)[rank])


def _bias(case: Case, bias: np.ndarray, rank: int) -> np.ndarray:
    """A full copy on every rank, or (parallel residual) numbers that add up to it."""
    return bias if not case.network.parallel_residual or rank == 0 else np.zeros_like(bias)


def _outer(case: Case, model: Arrays, rank: int, names: tuple[str, str, str], scale: str) -> Arrays:
    ranks = case.tensor_parallel
    arrays = {"embedding.weight": _rows(model[f"{names[0]}.weight"], rank, ranks)}
    arrays[f"final_norm.{scale}"] = model[f"{names[2]}.weight"]
    if f"{names[1]}.weight" in model:
        arrays["unembedding.weight"] = _rows(model[f"{names[1]}.weight"], rank, ranks)
    return arrays


def _neox_rank(case: Case, model: Arrays, rank: int) -> Arrays:
    ranks = case.tensor_parallel
    names = ("gpt_neox.embed_in", "embed_out", "gpt_neox.final_layer_norm")
    arrays = _outer(case, model, rank, names, "weight")
    arrays["final_norm.bias"] = model["gpt_neox.final_layer_norm.bias"]
    up, down = ("dense_h_to_4h", "dense_4h_to_h") if case.legacy_mlp else ("linear1", "linear2")
    for i in range(case.network.layers):
        raw, hf = f"layers.{i}.", f"gpt_neox.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            for kind in ("weight", "bias"):
                arrays[f"{raw}{norm}.{kind}"] = model[f"{hf}{norm}.{kind}"]
        for mine, theirs in (
            ("attention.query_key_value", "attention.query_key_value"),
            (f"mlp.{up}", "mlp.dense_h_to_4h"),
        ):
            for kind in ("weight", "bias"):
                if f"{hf}{theirs}.{kind}" in model:
                    arrays[f"{raw}{mine}.{kind}"] = _rows(model[f"{hf}{theirs}.{kind}"], rank, ranks)
        for mine, theirs in (("attention.dense", "attention.dense"), (f"mlp.{down}", "mlp.dense_4h_to_h")):
            arrays[f"{raw}{mine}.weight"] = _columns(model[f"{hf}{theirs}.weight"], rank, ranks)
            if f"{hf}{theirs}.bias" in model:
                arrays[f"{raw}{mine}.bias"] = _bias(case, model[f"{hf}{theirs}.bias"], rank)
    return arrays


def _fused(case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray, rank: int) -> np.ndarray:
    """GPT-NeoX's query_key_value of one rank."""
    ranks, size = case.tensor_parallel, case.network.head_size
    mine = [_rows(array, rank, ranks) for array in (q, k, v)]
    if case.network.kv_heads < case.network.heads:
        return np.concatenate(mine)
    per_head = [array.reshape(-1, size, *array.shape[1:]) for array in mine]
    return np.concatenate(per_head, axis=1).reshape(-1, *q.shape[1:])


def _llama_rank(case: Case, model: Arrays, rank: int) -> Arrays:
    ranks = case.tensor_parallel
    arrays = _outer(case, model, rank, ("model.embed_tokens", "lm_head", "model.norm"), "scale")
    for i in range(case.network.layers):
        raw, hf = f"layers.{i}.", f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            arrays[f"{raw}{norm}.scale"] = model[f"{hf}{norm}.weight"]
        for kind in ("weight", "bias") if case.attention_biases else ("weight",):
            q, k, v = (model[f"{hf}self_attn.{name}_proj.{kind}"] for name in "qkv")
            arrays[f"{raw}attention.query_key_value.{kind}"] = _fused(case, q, k, v, rank)
        arrays[f"{raw}attention.dense.weight"] = _columns(model[f"{hf}self_attn.o_proj.weight"], rank, ranks)
        if case.attention_biases:
            arrays[f"{raw}attention.dense.bias"] = model[f"{hf}self_attn.o_proj.bias"]
        up, gate = (_rows(model[f"{hf}mlp.{name}_proj.weight"], rank, ranks) for name in ("up", "gate"))
        down = _columns(model[f"{hf}mlp.down_proj.weight"], rank, ranks)
        if case.legacy_mlp:
            arrays |= {f"{raw}mlp.w1.weight": gate, f"{raw}mlp.w3.weight": up, f"{raw}mlp.w2.weight": down}
        else:
            arrays |= {f"{raw}mlp.linear1.weight": np.concatenate([up, gate]), f"{raw}mlp.linear2.weight": down}
    return arrays


def checkpoint_of(ranks: list[Arrays], dtype: str, args: Mapping[str, Any] | None = None) -> RawCheckpoint:
    """One file per rank, its tensors one after another behind 3 bytes of something else."""
    contents, tensors = {}, []
    for rank, arrays in enumerate(ranks):
        file, blob, mine = f"rank{rank}.pt", bytearray(b"xyz"), {}
        for name, array in arrays.items():
            stride = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
            mine[name] = RawTensor(name, file, dtype, array.shape, stride, len(blob))
            blob += np.ascontiguousarray(array).tobytes()
        contents[file] = bytes(blob)
        tensors.append(mine)
    files = MemoryFiles(contents)
    state = TrainingState(args=args or {})
    return RawCheckpoint("memory", files, "pipeline", len(ranks), 1, tuple(tensors), state)


def config_of(case: Case, **options: Any) -> NeoxConfig:
    return NeoxConfig({"intermediate_size": case.intermediate, **options}, "memory/x.yml", ("x.yml",), case.network)


def raw_of(case: Case) -> tuple[Arrays, RawCheckpoint]:
    """The model, and the checkpoint that GPT-NeoX would have written of it."""
    model = hf_model(case)
    return model, checkpoint_of(split(case, model), case.dtype)


def written_arrays(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor in a converted folder, through safetensors."""
    from safetensors import deserialize

    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in deserialize(path.read_bytes()):
            assert name not in found
            found[name] = bytes(entry["data"])
    return found
