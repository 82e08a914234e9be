"""What a tensor is by its Hugging Face name: its layer type, and whether initialisation draws it or sets it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from publish.convert.plan import ConversionPlan, Recipe
from publish.explain.construction import NORMAL, Scale
from publish.neox.config import NeoxConfig

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


# The standard deviation that a run's init methods predict for each tensor, from its config alone.


OUTPUT = frozenset({DENSE, MLP_DOWN})


def _orthogonal(scale: Scale) -> float:
    """A matrix of orthonormal rows or columns, times the root of 2."""
    return math.sqrt(2 / max(scale.shape))


METHODS: Mapping[str, Callable[[Scale], float]] = {
    **NORMAL,
    "xavier_uniform": NORMAL["xavier_normal"],
    "orthogonal": _orthogonal,
    "scaled_orthogonal": lambda scale: _orthogonal(scale) / math.sqrt(scale.layers),
}


def expected_stds(plan: ConversionPlan, config: NeoxConfig) -> dict[str, float]:
    """Tensor -> predicted standard deviation, for the matrices that are drawn by a known method."""
    return {recipe.name: std for recipe in plan.recipes if (std := _expected(recipe, plan, config)) is not None}


def _expected(recipe: Recipe, plan: ConversionPlan, config: NeoxConfig) -> float | None:
    kind, shape = layer_type(recipe.name), recipe.slices[0].tensor.shape  # a rank draws its own shard
    method = METHODS.get(str(config.get("output_layer_init_method" if kind in OUTPUT else "init_method")))
    if kind not in RANDOM or method is None or len(shape) != 2:
        return None
    return method(Scale(plan.network.layers, plan.network.hidden, float(config.get("init_method_std")), shape))
