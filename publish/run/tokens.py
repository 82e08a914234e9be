"""How many tokens a step has seen, from the config and the checkpoint's own count of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publish.neox.state import TrainingState


def tokens_per_step(options: Mapping[str, Any], state: TrainingState) -> int | None:
    """Tokens in one step: sequences in a global batch x sequence length; None where neither file tells.

    The global batch is ``train_batch_size``, else micro batch x gradient accumulation x data-parallel ranks
    (DeepSpeed's rule), the last from the checkpoint's ``dp_world_size``.
    """
    length = options.get("seq_length")
    sequences = options.get("train_batch_size")
    if sequences is None:
        micro = options.get("train_micro_batch_size_per_gpu", options.get("batch_size"))
        accumulation = options.get("gradient_accumulation_steps", options.get("gas", 1))
        factors = (micro, accumulation, state.data_parallel)
        if not all(_count(factor) for factor in factors):
            return None
        sequences = micro * accumulation * state.data_parallel
    return sequences * length if _count(sequences) and _count(length) else None


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
