"""Peak memory of one conversion against the model's size: synthetic pipeline checkpoints at tensor parallel 2, fp16.

Usage: python scripts/bench/memory.py [WORK_FOLDER]

Each model is written by this script in GPT-NeoX's pipeline layout, converted by the command in a process of its own,
and removed. Printed: weights, largest tensor, peak resident memory of the whole process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODELS = {"14M": (6, 128, 4), "410M": (24, 1024, 16), "1.4B": (24, 2048, 16)}
VOCABULARY = 50_432
RANKS = 2
CONFIG = """\
{{"pipe-parallel-size": 1, "model-parallel-size": 2, "num-layers": {layers}, "hidden-size": {hidden},
"num-attention-heads": {heads}, "seq-length": 2048, "max-position-embeddings": 2048, "pos-emb": "rotary",
"rotary-pct": 0.25, "no-weight-tying": true, "gpt-j-residual": true, "bias-gelu-fusion": true}}
"""


def layer(hidden: int) -> dict[str, Any]:
    """One rank's tensors of a layer, fp16."""
    import torch

    half = torch.float16
    vector = {name: torch.ones(hidden, dtype=half) for name in ("input_layernorm", "post_attention_layernorm")}
    tensors = {f"{name}.weight": value for name, value in vector.items()}
    tensors |= {f"{name}.bias": torch.zeros(hidden, dtype=half) for name in vector}
    shapes = {
        "attention.query_key_value": (3 * hidden // RANKS, hidden),
        "attention.dense": (hidden, hidden // RANKS),
        "mlp.dense_h_to_4h": (4 * hidden // RANKS, hidden),
        "mlp.dense_4h_to_h": (hidden, 4 * hidden // RANKS),
    }
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = torch.randn(shape).mul_(0.02).to(half)
        tensors[f"{name}.bias"] = torch.zeros(shape[0], dtype=half)
    return tensors


def write(folder: Path, layers: int, hidden: int, heads: int) -> None:
    """A checkpoint of step 0."""
    import torch

    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "model.yml").write_text(CONFIG.format(layers=layers, hidden=hidden, heads=heads))
    rows = torch.randn(VOCABULARY // RANKS, hidden).mul_(0.02).to(torch.float16)
    norm = {
        "norm.weight": torch.ones(hidden, dtype=torch.float16),
        "norm.bias": torch.zeros(hidden, dtype=torch.float16),
    }
    for rank in range(RANKS):
        files = {0: {"word_embeddings.weight": rows}, layers + 3: norm, layers + 4: {"final_linear.weight": rows}}
        files |= {number: layer(hidden) for number in range(2, layers + 2)}
        for number, tensors in files.items():
            torch.save(tensors, folder / f"layer_{number:02}-model_{rank:02}-model_states.pt")
        torch.save({"module": None, "iteration": 0, "args": {}}, folder / f"mp_rank_{rank:02}_model_states.pt")


def measure(folder: Path, *options: str) -> float:
    """Peak resident megabytes of one conversion in a process of its own."""
    out = folder.with_name("out")
    code = (
        "import resource, sys\nfrom publish.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", str(folder), "--out", str(out), "--tokenizer", "none", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    return int(done.stderr.split()[-1]) / 1024


def main(work: Path) -> None:
    print(f"{'model':6} {'weights MB':>11} {'largest MB':>11} {'peak MB':>9} {'without logits':>15}")
    for name, (layers, hidden, heads) in MODELS.items():
        folder = work / "global_step0"
        # in a process of its own: a child's peak counts what its parent had in memory when it forked
        arguments = map(str, (folder, layers, hidden, heads))
        subprocess.run([sys.executable, __file__, "write", *arguments], check=True)
        weights = sum(path.stat().st_size for path in folder.glob("layer_*")) / 1e6
        largest = max(VOCABULARY * hidden, 4 * hidden * hidden) * 2 / 1e6
        whole, plain = measure(folder), measure(folder, "--no-verify-logits")
        print(f"{name:6} {weights:11.1f} {largest:11.1f} {whole:9.0f} {plain:15.0f}", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write(Path(sys.argv[2]), *map(int, sys.argv[3:]))
        sys.exit()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
