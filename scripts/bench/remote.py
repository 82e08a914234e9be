"""Bytes and requests that a source on a Hub costs, for one 14M step whose file is seven times as large as its weights.

Usage: python scripts/bench/remote.py

The script writes the checkpoint in the sequential layout, as DeepSpeed saves it: fp16 weights in one flat storage, and
Adam's state in fp32. A rehearsal Hub counts bytes and requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from models import SHAPES, Shape, options, tensors_of

from publish.rehearsal.server import RehearsalHub

CODE = "from publish.cli import main; main()"
REPO = "lab/raw"


def write(folder: Path, shape: Shape) -> int:
    """The checkpoint; bytes of its weights."""
    import torch

    named = tensors_of(shape)
    flat = torch.cat([tensor.reshape(-1) for tensor in named.values()])
    module, at = {}, 0
    for name, tensor in named.items():
        module[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    adam = {name: torch.zeros(flat.numel()) for name in ("master", "exp_avg", "exp_avg_sq")}
    state = {"module": module, "optimizer": adam, "iteration": 0, "torch_rng_state": torch.get_rng_state(), "args": {}}
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "model.yml").write_text(json.dumps({**options(shape, 1), "pipe-parallel-size": 0}))
    torch.save(state, folder / "mp_rank_00_model_states.pt")
    return flat.numel() * flat.element_size()


def main(work: Path) -> None:
    weights = write(work / "raw", SHAPES["14M"])
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    with RehearsalHub(work / "hub", api_quota=10**9, resolver_quota=10**9) as hub:
        api = HfApi(endpoint=hub.url, token="hf_lab")
        api.create_repo(REPO)
        api.create_branch(REPO, branch="step0")
        api.upload_folder(repo_id=REPO, folder_path=work / "raw", revision="step0")
        hub.reset_stats()
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(work / "home")}
        arguments = ["convert", REPO, "--step", "0", "--out", str(work / "out"), "--tokenizer", "none"]
        subprocess.run([sys.executable, "-c", CODE, *arguments], env=environment, check=True, capture_output=True)
        stats = hub.stats()
    served, asked = stats.bytes_out_by_repo[REPO], sum(stats.requests.values()) - stats.requests["refs"]
    file = (work / "raw" / "mp_rank_00_model_states.pt").stat().st_size
    print("| weights MB | file MB | served MB | served / weights | requests a step |")
    print("|---:|---:|---:|---:|---:|")
    cells = f"{weights / 1e6:.1f} | {file / 1e6:.1f} | {served / 1e6:.1f} | {served / weights:.4f} | {asked}"
    print(f"| {cells} |")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
