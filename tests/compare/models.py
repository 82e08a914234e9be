"""Hugging Face models with GPT-NeoX's documented initialisation, in numpy, and folders that hold them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from publish.compare.model import open_model
from publish.compare.pair import compare
from publish.compare.report import Report
from publish.sources.runs import parse_location

Arrays = dict[str, np.ndarray[Any, Any]]
NAMES = {np.dtype("f2"): "F16", np.dtype("f4"): "F32", np.dtype("f8"): "F64", np.dtype("u2"): "BF16"}


@dataclass(frozen=True)
class Model:
    """Sizes, by default those of Pythia 14M; ``factors`` multiply the deviation of tensors by the end of their name."""

    layers: int = 6
    hidden: int = 128
    vocabulary: int = 50_304
    factors: Mapping[str, float] = field(default_factory=dict)

    def draw(self, seed: int) -> Arrays:
        """small_init, and wang_init for the output projections; norms 1, biases 0."""
        generator, d = np.random.default_rng(seed), self.hidden
        small, wang = math.sqrt(2 / (5 * d)), 2 / (self.layers * math.sqrt(d))
        tensors: Arrays = {}

        def drawn(name: str, rows: int, columns: int, std: float) -> None:
            std *= next((factor for end, factor in self.factors.items() if name.endswith(end)), 1.0)
            values = generator.standard_normal((rows, columns), np.float32) * np.float32(std)
            tensors[f"{name}.weight"] = values.astype(np.float16)

        def norm(name: str) -> None:
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(d, "f2"), np.zeros(d, "f2")

        drawn("gpt_neox.embed_in", self.vocabulary, d, small)
        for layer in range(self.layers):
            prefix = f"gpt_neox.layers.{layer}."
            norm(f"{prefix}input_layernorm")
            norm(f"{prefix}post_attention_layernorm")
            for name, rows, columns, std in (
                ("attention.query_key_value", 3 * d, d, small),
                ("attention.dense", d, d, wang),
                ("mlp.dense_h_to_4h", 4 * d, d, small),
                ("mlp.dense_4h_to_h", d, 4 * d, wang),
            ):
                drawn(prefix + name, rows, columns, std)
                tensors[f"{prefix}{name}.bias"] = np.zeros(rows, "f2")
        norm("gpt_neox.final_layer_norm")
        drawn("embed_out", self.vocabulary, d, small)
        return tensors


SMALL = Model(layers=2, hidden=32, vocabulary=512)


def safetensors(tensors: Mapping[str, np.ndarray[Any, Any]], dtypes: Mapping[str, str] | None = None) -> bytes:
    """A file of these tensors, by name; unsigned 16-bit numbers are bfloat16 bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(tensors):
        array = tensors[name]
        dtype = (dtypes or {}).get(name) or NAMES[array.dtype]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors[name].tobytes() for name in sorted(tensors))


def save(folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]], config: Mapping[str, Any] | None = None) -> Path:
    """A model's folder."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def report(left: str | Path, right: str | Path, step: int | None = None) -> Report:
    """Two locations compared."""
    with ExitStack() as stack:
        models = [open_model(parse_location(str(location)), step) for location in (left, right)]
        for model in models:
            stack.callback(model.close)
        return Report(compare(*models))
