"""Raw checkpoints of freshly drawn models, written with torch in GPT-NeoX's layouts, and drawn as GPT-NeoX draws."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.explain import slowgpu

TRACKER = 2718
NEOX = {"rotary-pct": 0.25, "gpt-j-residual": True}
LLAMA = {
    "norm": "rmsnorm",
    "rms_norm_epsilon": 1e-5,
    "rotary-pct": 1,
    "activation": "swiglu",
    "use_bias_in_norms": False,
    "use_bias_in_attn_linear": False,
    "use_bias_in_mlp": False,
    "intermediate_size": 384,
}
Shape = tuple[int, int]
Draw = Callable[[int, str, Shape, float], torch.Tensor]  # rank, name, shape, std


@dataclass(frozen=True)
class Model:
    """A small model with Pythia's methods. ``kind``: neox (parallel residual, biases), llama-2023 or llama-2026."""

    layers: int = 2
    hidden: int = 32
    vocabulary: int = 256
    tensor_parallel: int = 1
    sequential: bool = True
    tied: bool = False
    dtype: str = "float16"
    seed: int = 1234
    kind: str = "neox"
    kv_heads: int = 4
    stages: int = 1

    @property
    def options(self) -> dict[str, Any]:
        return {
            "pipe-parallel-size": 0 if self.sequential else self.stages,
            "model-parallel-size": self.tensor_parallel,
            "num-layers": self.layers,
            "hidden-size": self.hidden,
            "num-attention-heads": 4,
            "seq-length": 32,
            "max-position-embeddings": 32,
            "pos-emb": "rotary",
            "no-weight-tying": not self.tied,
            "init_method": "small_init",
            "output_layer_init_method": "wang_init",
            "seed": self.seed,
            **(NEOX if self.kind == "neox" else LLAMA | {"num_kv_heads": self.kv_heads}),
            **({"mlp_type": "llama", "activation": "silu"} if self.kind == "llama-2023" else {}),
        }

    def drawn(self) -> list[tuple[str, Shape, float]]:
        """(place and name, shape on a rank, std) in the order of construction."""
        h, ranks = self.hidden, self.tensor_parallel
        small, wang = math.sqrt(2 / (5 * h)), 2 / self.layers / math.sqrt(h)
        qkv = 3 * h if self.kind == "neox" else h + 2 * self.kv_heads * (h // 4)
        tensors: list[tuple[str, Shape, float]] = [("0.word_embeddings.weight", (self.vocabulary // ranks, h), small)]
        for i in range(2, self.layers + 2):
            tensors.append((f"{i}.attention.query_key_value.weight", (qkv // ranks, h), small))
            tensors.append((f"{i}.attention.dense.weight", (h, h // ranks), wang))
            tensors += [
                (f"{i}.mlp.{name}.weight", (rows // ranks, h) if std == small else (h, rows // ranks), std)
                for name, rows, std in self._mlp(small, wang)
            ]
        if not self.tied:
            tensors.append((f"{self.layers + 4}.final_linear.weight", (self.vocabulary // ranks, h), small))
        return tensors

    def _mlp(self, small: float, wang: float) -> list[tuple[str, int, float]]:
        wide = 4 * self.hidden
        if self.kind == "llama-2023":
            return [("w1", wide, small), ("w3", wide, small), ("w2", wide, wang)]
        if self.kind == "llama-2026":
            return [("linear1", 2 * wide, small), ("linear2", wide, wang)]
        return [("linear1", wide, small), ("linear2", wide, wang)]

    def constant(self) -> dict[str, torch.Tensor]:
        """Norms and biases."""
        h, ranks, dtype = self.hidden, self.tensor_parallel, getattr(torch, self.dtype)
        norms = [
            f"{i}.{norm}" for i in range(2, self.layers + 2) for norm in ("input_layernorm", "post_attention_layernorm")
        ]
        norms.append(f"{self.layers + 3}.norm")
        if self.kind != "neox":
            return {f"{norm}.scale": torch.ones(h, dtype=dtype) for norm in norms}
        found = {f"{norm}.weight": torch.ones(h, dtype=dtype) for norm in norms}
        found |= {f"{norm}.bias": torch.zeros(h, dtype=dtype) for norm in norms}
        for i in range(2, self.layers + 2):
            for name, rows in (
                ("attention.query_key_value", 3 * h // ranks),
                ("attention.dense", h),
                ("mlp.linear1", 4 * h // ranks),
                ("mlp.linear2", h),
            ):
                found[f"{i}.{name}.bias"] = torch.zeros(rows, dtype=dtype)
        return found


@dataclass
class Drawn:
    """Every rank's tensors by place and name, and the generators' states afterwards (None: none is stored)."""

    model: Model
    ranks: list[dict[str, torch.Tensor]]
    states: Sequence[bytes | None]

    def write(self, folder: Path) -> Path:
        """Write it as GPT-NeoX's save_checkpoint does, at step 0."""
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "run.yml").write_text(json.dumps(self.model.options))
        for number, state in enumerate(self.states):
            rank = number % self.model.tensor_parallel
            whole = self.ranks[rank] | self.model.constant()
            trackers = (
                {} if state is None else {"model-parallel-rng": torch.frombuffer(bytearray(state), dtype=torch.uint8)}
            )
            main: dict[str, Any] = {"module": None, "iteration": 0, "args": {}, "rng_tracker_states": trackers}
            if self.model.sequential:
                main["module"] = {f"sequential.{name}": tensor for name, tensor in whole.items()}
            elif number == rank:
                self._layers(folder, rank, whole)
            torch.save(main, folder / f"mp_rank_{number:02}_model_states.pt")
        return folder

    def _layers(self, folder: Path, rank: int, tensors: dict[str, torch.Tensor]) -> None:
        by_layer: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            number, local = name.split(".", 1)
            by_layer.setdefault(int(number), {})[local] = tensor
        for number, layer in by_layer.items():
            torch.save(layer, folder / f"layer_{number:02}-model_{rank:02}-model_states.pt")


def on_cpu(model: Model, constructions: int | None = None, skip: int = 0) -> Drawn:
    """Drawn by torch's CPU generators: twice in the sequential layout unless told; after ``skip`` other numbers."""
    times = (2 if model.sequential else 1) if constructions is None else constructions
    ranks, states = [], []
    for rank in range(model.tensor_parallel):
        generator = torch.Generator().manual_seed(TRACKER + model.seed + rank)
        torch.empty(skip).uniform_(generator=generator)
        for _ in range(times):
            tensors = {
                name: torch.empty(shape, dtype=getattr(torch, model.dtype)).normal_(0, std, generator=generator)
                for name, shape, std in model.drawn()
            }
        ranks.append(tensors)
        states.append(generator.get_state().numpy().tobytes())
    return Drawn(model, ranks, states)


def on_gpu(
    model: Model,
    resident: int,
    offset: int = 0,
    *,
    filler: bool = False,
    perturb: int | None = None,
    stored: bool = True,
) -> Drawn:
    """Drawn by the slow GPU from ``offset`` on; ``perturb`` seeds a change of the last two bits of every normal."""
    ranks: list[dict[str, torch.Tensor]] = []
    states: list[bytes | None] = []
    for rank in range(model.tensor_parallel):
        seed, at, tensors = TRACKER + model.seed + rank, offset, {}
        for name, shape, std in model.drawn():
            normals, at = slowgpu.standard_normals(seed, at, shape[0] * shape[1], resident)
            if perturb is not None:
                noise = np.random.default_rng(perturb + rank).integers(0, 4, normals.size).astype(np.uint32)
                normals = (normals.view(np.uint32) ^ noise).view(np.float32)
            scaled = torch.from_numpy(normals * np.float32(std)).reshape(shape)
            tensors[name] = scaled.to(getattr(torch, model.dtype))
        ranks.append(tensors)
        states.append(bytes(800 if filler else 0) + struct.pack("<Qq", seed, at) if stored else None)
    return Drawn(model, ranks, states)


def on_cpu_in_stages(model: Model, begins: Sequence[int]) -> Drawn:
    """Drawn by the CPU generators of a pipeline whose stages begin at these tensors (0 first)."""
    ranks: list[dict[str, torch.Tensor]] = [{} for _ in range(model.tensor_parallel)]
    states: list[bytes | None] = []
    drawn, last = model.drawn(), len(begins) - 1
    for stage, begin in enumerate(begins):
        seed = model.seed if stage in (0, last) else model.seed + 1138 + stage * model.tensor_parallel
        end = begins[stage + 1] if stage < last else len(drawn)
        for rank in range(model.tensor_parallel):
            generator = torch.Generator().manual_seed(TRACKER + seed + rank)
            for name, shape, std in drawn[begin:end]:
                tensor = torch.empty(shape, dtype=getattr(torch, model.dtype))
                ranks[rank][name] = tensor.normal_(0, std, generator=generator)
            if model.tied and stage == last:
                torch.empty(drawn[0][1], dtype=torch.float16).normal_(generator=generator)
            states.append(generator.get_state().numpy().tobytes())
    return Drawn(model, ranks, states)
