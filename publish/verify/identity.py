"""Is the checkpoint the step that it is taken for, and is its config its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig
from publish.verify.gate import GateResult, failed, passed, skipped

IDENTITY = "identity"


def identity(checkpoint: RawCheckpoint, config: NeoxConfig, step: int) -> GateResult:
    """The checkpoint's own ``iteration`` is ``step``, and its own ``args`` are the config's; skipped if it has none.

    GPT-NeoX keeps both in the first ``mp_rank`` file (``megatron/checkpointing.py``), which a pipeline checkpoint can
    be converted without.
    """
    iteration = checkpoint.state.iteration
    pairs = list(_pairs(checkpoint, config))
    figures = {"step": step, "args_compared": len(pairs)}
    wrong = [
        f"{name} is {theirs!r} in the checkpoint and {ours!r} in the config"
        for name, ours, theirs in pairs
        if ours != theirs
    ]
    if iteration is not None and iteration != step:
        wrong.insert(0, f"the checkpoint says it is iteration {iteration:,}, not {step:,}")
    if iteration is not None:
        figures["iteration"] = iteration
    if wrong:
        return failed(IDENTITY, "; ".join(wrong), **figures)
    if iteration is None:
        silent = "it has no mp_rank file" if not checkpoint.state.args else "its mp_rank file states none"
        return skipped(IDENTITY, f"the checkpoint does not say its iteration: {silent}", **figures)
    return passed(IDENTITY, f"iteration {iteration:,}; {len(pairs)} sizes equal the config's", **figures)


def _pairs(checkpoint: RawCheckpoint, config: NeoxConfig) -> Iterator[tuple[str, Any, Any]]:
    """(name, the config's value, the checkpoint's value) where the checkpoint states one."""
    network, args, tensors = config.network, checkpoint.state.args, checkpoint.ranks[0]
    stated = {
        "num_layers": network.layers,
        "hidden_size": network.hidden,
        "num_attention_heads": network.heads,
        "max_position_embeddings": network.context,
        "model_parallel_size": checkpoint.tensor_parallel,
    }
    for name, ours in stated.items():
        if args.get(name) is not None:
            yield name, ours, args[name]
    if args.get("padded_vocab_size") is not None and "embedding.weight" in tensors:
        rows = tensors["embedding.weight"].shape[0] * checkpoint.tensor_parallel
        yield "padded_vocab_size (rows of the embedding)", rows, args["padded_vocab_size"]
