"""What a tensor is by its Hugging Face name: its layer type, and whether initialisation draws it or sets it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

EMBEDDING, UNEMBEDDING = "embedding", "unembedding"
QKV, DENSE = "QKV", "attention dense"
MLP_UP, MLP_DOWN = "MLP up", "MLP down"
NORMS, BIASES, OTHER = "norms", "biases", "other"
TYPES = (EMBEDDING, QKV, DENSE, MLP_UP, MLP_DOWN, UNEMBEDDING, NORMS, BIASES, OTHER)
RANDOM = frozenset({EMBEDDING, QKV, DENSE, MLP_UP, MLP_DOWN, UNEMBEDDING})
CONSTANT = frozenset({NORMS, BIASES})  # ones and zeros until a model is trained

_TABLE = (
    (r"(layer_?norm|_layernorm|\.norm|^norm|ln_f)\.(weight|bias)$", NORMS),
    (r"\.bias$", BIASES),
    (r"(embed_in|embed_tokens)\.weight$", EMBEDDING),
    (r"(embed_out|lm_head)\.weight$", UNEMBEDDING),
    (r"(query_key_value|[qkv]_proj)\.weight$", QKV),
    (r"(attention\.dense|o_proj)\.weight$", DENSE),
    (r"(dense_h_to_4h|up_proj|gate_proj)\.weight$", MLP_UP),
    (r"(dense_4h_to_h|down_proj)\.weight$", MLP_DOWN),
)
_RULES = tuple((re.compile(pattern), name) for pattern, name in _TABLE)
# of GPTNeoXAttention and Llama's in transformers before 4.32: computed, not trained, yet saved
_BUFFERS = re.compile(r"\.(attention\.bias|masked_bias|rotary_emb\.inv_freq)$")
_LAYER = re.compile(r"layers\.(\d+)\.")


@lru_cache(maxsize=1 << 14)
def layer_type(name: str) -> str:
    """The type of the tensor ``name``; `OTHER` for what no known architecture has."""
    return next((kind for pattern, kind in _RULES if pattern.search(name)), OTHER)


def is_buffer(name: str) -> bool:
    """Whether old files hold this though no training changes it: masks and rotary frequencies."""
    return _BUFFERS.search(name) is not None


def layer_of(name: str) -> int | None:
    """The number of the layer that the tensor is in; None outside of the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def by_layer(names: Iterable[str]) -> Mapping[int | None, list[str]]:
    """Names grouped by layer, in the order in which they come."""
    groups: dict[int | None, list[str]] = {}
    for name in names:
        groups.setdefault(layer_of(name), []).append(name)
    return groups
