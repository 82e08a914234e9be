"""The layer type of a tensor by its Hugging Face name, and the standard deviation that its init method predicts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from publish.convert.plan import ConversionPlan, Recipe
from publish.explain.construction import NORMAL_STDS, Scale
from publish.neox.config import NeoxConfig

EMBEDDING, UNEMBEDDING = "embedding", "unembedding"
QKV, DENSE = "QKV", "attention dense"
MLP_UP, MLP_DOWN = "MLP up", "MLP down"
NORMS, BIASES, OTHER = "norms", "biases", "other"
TYPES = (EMBEDDING, QKV, DENSE, MLP_UP, MLP_DOWN, UNEMBEDDING, NORMS, BIASES, OTHER)
RANDOM = frozenset({EMBEDDING, QKV, DENSE, MLP_UP, MLP_DOWN, UNEMBEDDING})  # drawn; norms and biases are constants

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
_LAYER = re.compile(r"layers\.(\d+)\.")


@lru_cache(maxsize=1 << 14)
def layer_type(name: str) -> str:
    """The type of the tensor ``name``; `OTHER` if it is none of the known architectures'."""
    return next((kind for pattern, kind in _RULES if pattern.search(name)), OTHER)


def layer_of(name: str) -> int | None:
    """The number of the layer that the tensor is in; None if it is in no layer."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def by_layer(names: Iterable[str]) -> Mapping[int | None, list[str]]:
    """Names grouped by layer, in their order."""
    groups: dict[int | None, list[str]] = {}
    for name in names:
        groups.setdefault(layer_of(name), []).append(name)
    return groups


_OUTPUT = frozenset({DENSE, MLP_DOWN})


def _orthogonal(scale: Scale) -> float:
    """Of a matrix of orthonormal rows or columns, times the square root of 2."""
    return math.sqrt(2 / max(scale.shape))


_METHODS: Mapping[str, Callable[[Scale], float]] = {
    **NORMAL_STDS,
    "xavier_uniform": NORMAL_STDS["xavier_normal"],
    "orthogonal": _orthogonal,
    "scaled_orthogonal": lambda scale: _orthogonal(scale) / math.sqrt(scale.layers),
}


def expected_stds(plan: ConversionPlan, config: NeoxConfig) -> dict[str, float]:
    """The standard deviation that the config predicts for each matrix whose init method is known, by tensor name."""
    return {recipe.name: std for recipe in plan.recipes if (std := _expected_std(recipe, plan, config)) is not None}


def _expected_std(recipe: Recipe, plan: ConversionPlan, config: NeoxConfig) -> float | None:
    kind, shape = layer_type(recipe.name), recipe.parts[0].tensor.shape  # a rank draws its own shard
    method = _METHODS.get(str(config.get("output_layer_init_method" if kind in _OUTPUT else "init_method")))
    if kind not in RANDOM or method is None or len(shape) != 2:
        return None
    return method(Scale(plan.network.layers, plan.network.hidden, float(config.get("init_method_std")), shape))
