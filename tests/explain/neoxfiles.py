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
Shape = tuple[int, int]
Draw = Callable[[int, str, Shape, float], torch.Tensor]  # rank, name, shape, std


@dataclass(frozen=True)
class Model:
    """A small GPT-NeoX model: Pythia's methods, parallel residual, biases."""

    layers: int = 2
    hidden: int = 32
    vocabulary: int = 256
    tensor_parallel: int = 1
    sequential: bool = True
    tied: bool = False
    dtype: str = "float16"
    seed: int = 1234

    @property
    def options(self) -> dict[str, Any]:
        return {
            "pipe-parallel-size": 0 if self.sequential else 1,
            "model-parallel-size": self.tensor_parallel,
            "num-layers": self.layers,
            "hidden-size": self.hidden,
            "num-attention-heads": 4,
            "seq-length": 32,
            "max-position-embeddings": 32,
            "pos-emb": "rotary",
            "rotary-pct": 0.25,
            "no-weight-tying": not self.tied,
            "gpt-j-residual": True,
            "init_method": "small_init",
            "output_layer_init_method": "wang_init",
            "seed": self.seed,
        }

    def drawn(self) -> list[tuple[str, Shape, float]]:
        """(place and name, shape on a rank, std) in the order of construction."""
        h, ranks = self.hidden, self.tensor_parallel
        small, wang = math.sqrt(2 / (5 * h)), 2 / self.layers / math.sqrt(h)
        tensors: list[tuple[str, Shape, float]] = [("0.word_embeddings.weight", (self.vocabulary // ranks, h), small)]
        for i in range(2, self.layers + 2):
            tensors += [
                (f"{i}.attention.query_key_value.weight", (3 * h // ranks, h), small),
                (f"{i}.attention.dense.weight", (h, h // ranks), wang),
                (f"{i}.mlp.linear1.weight", (4 * h // ranks, h), small),
                (f"{i}.mlp.linear2.weight", (h, 4 * h // ranks), wang),
            ]
        if not self.tied:
            tensors.append((f"{self.layers + 4}.final_linear.weight", (self.vocabulary // ranks, h), small))
        return tensors

    def constant(self) -> dict[str, torch.Tensor]:
        """Norms and biases."""
        h, ranks, dtype = self.hidden, self.tensor_parallel, getattr(torch, self.dtype)
        found = {}
        for i in range(2, self.layers + 2):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                found[f"{i}.{norm}.weight"] = torch.ones(h, dtype=dtype)
                found[f"{i}.{norm}.bias"] = torch.zeros(h, dtype=dtype)
            for name, rows in (("query_key_value", 3 * h // ranks), ("dense", h)):
                found[f"{i}.attention.{name}.bias"] = torch.zeros(rows, dtype=dtype)
            for name, rows in (("linear1", 4 * h // ranks), ("linear2", h)):
                found[f"{i}.mlp.{name}.bias"] = torch.zeros(rows, dtype=dtype)
        for kind, value in (("weight", 1.0), ("bias", 0.0)):
            found[f"{self.layers + 3}.norm.{kind}"] = torch.full((h,), value, dtype=dtype)
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
        for rank, (tensors, state) in enumerate(zip(self.ranks, self.states, strict=True)):
            whole = tensors | self.model.constant()
            trackers = (
                {} if state is None else {"model-parallel-rng": torch.frombuffer(bytearray(state), dtype=torch.uint8)}
            )
            main: dict[str, Any] = {"module": None, "iteration": 0, "args": {}, "rng_tracker_states": trackers}
            if self.model.sequential:
                main["module"] = {f"sequential.{name}": tensor for name, tensor in whole.items()}
            else:
                self._layers(folder, rank, whole)
            torch.save(main, folder / f"mp_rank_{rank:02}_model_states.pt")
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
