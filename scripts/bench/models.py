"""Synthetic GPT-NeoX checkpoints of any size, written through ``torch.save``: random fp16 weights, pipeline layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 50_432


@dataclass(frozen=True)
class Shape:
    """A Pythia's sizes."""

    name: str
    layers: int
    hidden: int
    heads: int

    @property
    def largest_bytes(self) -> int:
        """The largest tensor, fp16."""
        return max(VOCABULARY * self.hidden, 4 * self.hidden * self.hidden) * 2


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("14M", 6, 128, 4),
        Shape("410M", 24, 1024, 16),
        Shape("1.4B", 24, 2048, 16),
        Shape("12B", 36, 5120, 40),
    )
}


def write(folder: Path, shape: Shape, *, ranks: int = 1, step: int = 0, seed: int = 0) -> None:
    """A checkpoint of ``step`` with ``ranks`` tensor-parallel ranks, a file at a time: memory is that of a layer."""
    import torch

    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "model.yml").write_text(json.dumps(options(shape, ranks)))
    generator = torch.Generator().manual_seed(seed)
    for rank in range(ranks):
        for number in (0, *range(2, shape.layers + 2), shape.layers + 3, shape.layers + 4):
            tensors = _file(shape, ranks, number, generator)
            torch.save(tensors, folder / f"layer_{number:02}-model_{rank:02}-model_states.pt")
        state = {"module": None, "iteration": step, "global_steps": step, "args": {}}
        torch.save(state, folder / f"mp_rank_{rank:02}_model_states.pt")


def options(shape: Shape, ranks: int) -> dict[str, Any]:
    """The run's YAML."""
    return {
        "pipe-parallel-size": 1,
        "model-parallel-size": ranks,
        "num-layers": shape.layers,
        "hidden-size": shape.hidden,
        "num-attention-heads": shape.heads,
        "seq-length": 2048,
        "max-position-embeddings": 2048,
        "pos-emb": "rotary",
        "rotary-pct": 0.25,
        "no-weight-tying": True,
        "gpt-j-residual": True,
        "bias-gelu-fusion": True,
    }


def _file(shape: Shape, ranks: int, number: int, generator: Any) -> dict[str, Any]:
    """The tensors of one layer file of one rank."""
    import torch

    hidden, half = shape.hidden, torch.float16

    def random(rows: int, columns: int) -> torch.Tensor:
        return torch.empty(rows, columns, dtype=half).normal_(0, 0.02, generator=generator)

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(hidden, dtype=half), f"{name}.bias": torch.zeros(hidden, dtype=half)}

    if number == 0:
        return {"word_embeddings.weight": random(VOCABULARY // ranks, hidden)}
    if number == shape.layers + 3:
        return norm("norm")
    if number == shape.layers + 4:
        return {"final_linear.weight": random(VOCABULARY // ranks, hidden)}
    shapes = {
        "attention.query_key_value": (3 * hidden // ranks, hidden),
        "attention.dense": (hidden, hidden // ranks),
        "mlp.dense_h_to_4h": (4 * hidden // ranks, hidden),
        "mlp.dense_4h_to_h": (hidden, 4 * hidden // ranks),
    }
    tensors = norm("input_layernorm") | norm("post_attention_layernorm")
    for name, (rows, columns) in shapes.items():
        tensors |= {f"{name}.weight": random(rows, columns), f"{name}.bias": torch.zeros(rows, dtype=half)}
    return tensors
