"""In which order GPT-NeoX draws its weights, with which method; tensors that are not in the tables draw nothing.

Source: gpt-neox ``megatron/model/{gpt2_model,transformer,word_embeddings}.py`` and ``megatron/mpu/layers.py``
(c00ce70c, June 2023, and ea7aefd8, May 2026): a tensor is drawn when its module is built, on its rank's own shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

INIT, OUTPUT = "init", "output"

BEFORE: Mapping[str, str] = {"embedding.weight": INIT}
LAYER: Mapping[str, str] = {
    "attention.query_key_value.weight": INIT,
    "attention.dense.weight": OUTPUT,
    # 2023; gated MLPs of Llama: w1 is the gate, w3 up, w2 down
    "mlp.dense_h_to_4h.weight": INIT,
    "mlp.dense_4h_to_h.weight": OUTPUT,
    "mlp.w1.weight": INIT,
    "mlp.w3.weight": INIT,
    "mlp.w2.weight": OUTPUT,
    # 2026; a gated linear1 is one draw of both halves
    "mlp.linear1.weight": INIT,
    "mlp.linear2.weight": OUTPUT,
}
AFTER: Mapping[str, str] = {"unembedding.weight": INIT}  # absent when tied

_NAME = re.compile(r"layers\.(\d+)\.(.+)")
_PLACES: Mapping[str, int] = {local: place for place, local in enumerate(LAYER)}


def role(name: str) -> str | None:
    """Which of the run's two methods draws the tensor of this canonical name; None where nothing draws it."""
    found = _NAME.fullmatch(name)
    return LAYER.get(found[2]) if found else {**BEFORE, **AFTER}.get(name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The drawn tensors among ``names``, as they are drawn."""
    return tuple(sorted((name for name in names if role(name)), key=_place))


def _place(name: str) -> tuple[int, int, int]:
    found = _NAME.fullmatch(name)
    if found:
        return 1, int(found[1]), _PLACES[found[2]]
    return (0, 0, 0) if name in BEFORE else (2, 0, 0)


def may_begin_a_stage(name: str) -> bool:
    """Whether a pipeline stage can begin with this tensor: a layer's first, or the final linear."""
    return name in AFTER or name.endswith(".attention.query_key_value.weight")
