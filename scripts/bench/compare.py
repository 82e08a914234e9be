"""Time and memory of ``publish compare``, compared with a loop that reads both files and hashes them with SHA-256.

Usage: python scripts/bench/compare.py [WORK_FOLDER]

The script writes both models as fp16 safetensors, from different seeds. The comparison runs in a separate process.
Seconds are CPU seconds, the best of five for 14M, imports not counted. Memory is the peak beyond that of the process
after its imports.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODELS = {"14M": (6, 128), "410M": (24, 1024), "1.4B": (24, 2048)}
VOCABULARY = 50_304
CODE = """
import resource, sys, time
from publish.compare.pair import compare
from publish.compare.model import open_model
from publish.compare.report import Report
from publish.sources.runs import parse_location
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = 1e9
for _ in range(int(sys.argv[3])):
    begin = time.process_time()
    sides = [open_model(parse_location(path)) for path in sys.argv[1:3]]
    Report(compare(*sides)).document()
    best = min(best, time.process_time() - begin)
print(best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a GPT-NeoX model."""
    found: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (VOCABULARY, hidden)}
    for layer in range(layers):
        prefix = f"gpt_neox.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            found |= {f"{prefix}{name}.weight": (hidden,), f"{prefix}{name}.bias": (hidden,)}
        for name, rows, columns in (
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", 4 * hidden, hidden),
            ("mlp.dense_4h_to_h", hidden, 4 * hidden),
        ):
            found |= {f"{prefix}{name}.weight": (rows, columns), f"{prefix}{name}.bias": (rows,)}
    found |= {f"gpt_neox.final_layer_norm.{kind}": (hidden,) for kind in ("weight", "bias")}
    return found | {"embed_out.weight": (VOCABULARY, hidden)}


def write(folder: Path, layers: int, hidden: int, seed: int) -> None:
    """A model whose matrices are cut from one pool of random numbers."""
    pool = (np.random.default_rng(seed).standard_normal(1 << 23, np.float32) * 0.02).astype(np.float16)
    header, at = {}, 0
    for name, shape in sorted(shapes(layers, hidden).items()):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    folder.mkdir(parents=True)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (_, shape) in enumerate(sorted(shapes(layers, hidden).items())):
            left, start = int(np.prod(shape)), 7919 * number
            while left:
                piece = pool[start % pool.size :][:left]
                file.write((np.ones_like(piece) if len(shape) == 1 else piece).tobytes())
                left, start = left - piece.size, 0


def floor(paths: list[Path]) -> float:
    """Seconds to read and hash all files."""
    begin = time.process_time()
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(4 << 20):
                digest.update(chunk)
    return time.process_time() - begin


def main(work: Path) -> None:
    print("| model | floor s | compare s | ratio | memory MB |")
    print("|---|---:|---:|---:|---:|")
    for name, (layers, hidden) in MODELS.items():
        paths = [work / side / "model.safetensors" for side in ("left", "right")]
        for seed, path in enumerate(paths):  # in a process of its own: a child's peak counts its parent's when forked
            arguments = map(str, (path.parent, layers, hidden, seed))
            subprocess.run([sys.executable, __file__, "write", *arguments], check=True)
        tries = 5 if name == "14M" else 1
        best = min(floor(paths) for _ in range(tries + 1))
        command = [sys.executable, "-c", CODE, *(str(path.parent) for path in paths), str(tries)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, memory = map(float, done.stdout.split())
        print(f"| {name} | {best:.3f} | {seconds:.3f} | {seconds / best:.2f} | {memory:.0f} |", flush=True)
        for path in paths:
            path.unlink()
            path.parent.rmdir()


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), *map(int, sys.argv[3:]))
        sys.exit()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
