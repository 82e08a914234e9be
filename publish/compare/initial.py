"""The standard deviation that a run's init methods predict for each tensor, from its config alone.

Source: gpt-neox ``megatron/model/init_functions.py`` and the modules that call it (commits c00ce70c and ea7aefd8):
attention's and the MLP's output projections take ``output_layer_init_method``, every other matrix ``init_method``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from publish.compare.layers import DENSE, MLP_DOWN, RANDOM, layer_type
from publish.convert.recipes import ConversionPlan, Recipe
from publish.explain.methods import NORMAL, Scale
from publish.neox.config import NeoxConfig

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
    kind, shape = layer_type(recipe.name), recipe.parts[0].tensor.shape  # a rank draws its own shard
    method = METHODS.get(str(config.get("output_layer_init_method" if kind in OUTPUT else "init_method")))
    if kind not in RANDOM or method is None or len(shape) != 2:
        return None
    return method(Scale(plan.network.layers, plan.network.hidden, float(config.get("init_method_std")), shape))
