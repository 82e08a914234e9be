"""Published suites written directly to a rehearsal Hub: clean ones, to which tests add defects.

Branches are written straight into the Hub's git repositories, so 155 of them take a second. The weights are small
GPT-NeoX models that drift from step to step as trained ones do.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from publish.rehearsal.names import repo_id
from publish.rehearsal.storage.git import DeletePath, PutFile
from publish.rehearsal.storage.lfs import Pointer
from publish.rehearsal.storage.store import RepoStore

HIDDEN, LAYERS, VOCABULARY = 16, 2, 64
SHAPES: Mapping[str, tuple[int, ...]] = {
    "gpt_neox.embed_in.weight": (VOCABULARY, HIDDEN),
    **{
        f"gpt_neox.layers.{layer}.{name}": shape
        for layer in range(LAYERS)
        for name, shape in {
            "input_layernorm.weight": (HIDDEN,),
            "input_layernorm.bias": (HIDDEN,),
            "attention.query_key_value.weight": (3 * HIDDEN, HIDDEN),
            "mlp.dense_h_to_4h.weight": (4 * HIDDEN, HIDDEN),
        }.items()
    },
    "gpt_neox.final_layer_norm.weight": (HIDDEN,),
    "embed_out.weight": (VOCABULARY, HIDDEN),
}
CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 4 * HIDDEN,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
Tensors = dict[str, np.ndarray]


def tensors_at(step: int, seed: int = 0) -> Tensors:
    """The model of ``seed`` at ``step``: its initial weights and a drift from them; step 1 equals step 0."""
    made: Tensors = {}
    start, walk = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    for name, shape in SHAPES.items():
        drift = walk.normal(0, 0.02, shape) * math.sqrt(max(0, step - 1) / 143_000)
        if "layernorm.bias" in name:
            value = drift
        else:
            value = 1 + drift if len(shape) == 1 else start.normal(0, 0.02, shape) + drift
        made[name] = value.astype(np.float16)
    return made


def safetensors(tensors: Tensors, metadata: Mapping[str, str] = {"format": "pt"}) -> bytes:
    """A safetensors file."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, value in tensors.items():
        kind = {"float16": "F16", "float32": "F32"}[str(value.dtype)]
        entries[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(value.tobytes() for value in tensors.values())


def single(tensors: Tensors) -> dict[str, bytes]:
    return {"model.safetensors": safetensors(tensors)}


def sharded(tensors: Tensors, count: int) -> dict[str, bytes]:
    """``count`` shards and their index."""
    names = list(tensors)
    parts = [names[index::count] for index in range(count)]
    files = {
        f"model-{number:05d}-of-{count:05d}.safetensors": safetensors({name: tensors[name] for name in part})
        for number, part in enumerate(parts, 1)
    }
    places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    total = sum(value.nbytes for value in tensors.values())
    index = json.dumps({"metadata": {"total_size": total}, "weight_map": places}).encode()
    return {**files, "model.safetensors.index.json": index}


def card(repo: str, branch: str, count: int) -> bytes:
    """A card without a defect."""
    revision = f', revision="{branch}"' if branch != "main" else ""
    return (
        "---\nlicense: apache-2.0\nlanguage: [en]\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n"
        f"# {repo} {branch}\n\nOne of {count} checkpoints.\n\n```python\n"
        f'model = GPTNeoXForCausalLM.from_pretrained("{repo}"{revision})\n```\n'
    ).encode()


@dataclass
class Planted:
    """A repo on the rehearsal Hub in ``root``, written to without its API."""

    root: Path
    repo: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # branch -> path -> content

    def __post_init__(self) -> None:
        store = RepoStore(self.root, time.time)
        self.id = repo_id("models", *self.repo.split("/"))
        store.create(self.id, self.repo.split("/")[0], private=False)
        self.git, self.lfs = store.git(self.id), store.lfs(self.id)
        tip = self.git.tip("refs/heads/main")
        assert tip is not None
        self.first = tip

    def put(
        self, branch: str, files: Mapping[str, bytes], *, lfs: tuple[str, ...] = (), drop: tuple[str, ...] = ()
    ) -> str:
        """Commit to a branch (a new one starts at the first commit); weights, and paths in ``lfs``, go to LFS."""
        parent = self.git.tip(f"refs/heads/{branch}") or self.first
        changes: list[PutFile | DeletePath] = [DeletePath(path) for path in drop]
        for path, content in files.items():
            if path.endswith((".safetensors", ".bin")) or path in lfs:
                digest = hashlib.sha256(content).hexdigest()
                place = self.lfs.path(digest)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                content = Pointer(digest, len(content)).to_bytes()
            changes.append(PutFile(path, self.git.add_blob(content)))
        commit = self.git.add_commit(parent, changes, f"{branch} again", "mallory", int(time.time()))
        self.git.set_ref(f"refs/heads/{branch}", commit)
        held = {**self.files.get(branch, {}), **files}
        self.files[branch] = {path: content for path, content in held.items() if path not in drop}
        return commit

    def read(self, branch: str) -> dict[str, bytes]:
        """The files of the branch, as the Hub has them."""
        commit = self.git.resolve(branch)
        files = {}
        for entry in self.git.listing(commit, "", recursive=True):
            if not entry.is_folder:
                pointer = entry.pointer
                files[entry.path] = self.lfs.path(pointer.oid).read_bytes() if pointer else self.git.blob(entry.oid)
        return files

    def weights(self, branch: str) -> dict[str, bytes]:
        return {path: content for path, content in self.files[branch].items() if "model" in path}

    def copy_weights(self, source: str, target: str) -> None:
        self.put(target, self.weights(source))

    def delete(self, branch: str) -> None:
        self.git.delete_ref(f"refs/heads/{branch}")
        self.files.pop(branch, None)


def publish_suite(
    root: Path,
    repo: str,
    steps: tuple[int, ...],
    *,
    seed: int = 0,
    name: str = "step{}",
    shards: int = 1,
) -> Planted:
    """A suite without a defect: a branch for every step, and ``main`` equal to the last."""
    planted = Planted(root, repo)
    config = json.dumps(CONFIG).encode()
    for step in steps:
        tensors = tensors_at(step, seed)
        weights = single(tensors) if shards == 1 else sharded(tensors, shards)
        branch = name.format(step)
        planted.put(branch, {**weights, "config.json": config, "README.md": card(repo, branch, len(steps))})
    planted.put("main", {**weights, "config.json": config, "README.md": card(repo, "main", len(steps))})
    return planted
