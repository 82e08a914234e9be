"""The standard deviation that GPT-NeoX's init methods give each tensor, from the config alone.

Source: gpt-neox ``megatron/model/init_functions.py`` and the modules that call it (commits c00ce70c and ea7aefd8):
attention's and the MLP's output projections take ``output_layer_init_method``, every other matrix ``init_method``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from publish.compare.layers import DENSE, MLP_DOWN, RANDOM, layer_type
from publish.convert.recipes import ConversionPlan, Recipe
from publish.neox.config import NeoxConfig

OUTPUT = frozenset({DENSE, MLP_DOWN})


@dataclass(frozen=True, slots=True)
class Facts:
    """What an init method depends on: ``rows`` and ``columns`` of one rank's own matrix, ``std`` init-method-std."""

    std: float
    layers: int
    hidden: int
    rows: int
    columns: int


def _xavier(facts: Facts) -> float:
    return math.sqrt(2 / (facts.rows + facts.columns))


def _orthogonal(facts: Facts) -> float:
    """A matrix of orthonormal rows or columns, times the root of 2."""
    return math.sqrt(2 / max(facts.rows, facts.columns))


METHODS: Mapping[str, Callable[[Facts], float]] = {
    "normal": lambda facts: facts.std,
    "scaled_normal": lambda facts: facts.std / math.sqrt(2 * facts.layers),
    "single_residual_scaled_normal": lambda facts: facts.std / math.sqrt(facts.layers),
    "orthogonal": _orthogonal,
    "scaled_orthogonal": lambda facts: _orthogonal(facts) / math.sqrt(facts.layers),
    "xavier_uniform": _xavier,
    "xavier_normal": _xavier,
    "small_init": lambda facts: math.sqrt(2 / (5 * facts.hidden)),
    "wang_init": lambda facts: 2 / (facts.layers * math.sqrt(facts.hidden)),
}


def expected_stds(plan: ConversionPlan, config: NeoxConfig) -> dict[str, float]:
    """Tensor -> predicted standard deviation, for the tensors that are drawn by a known method."""
    return {recipe.name: std for recipe in plan.recipes if (std := _expected(recipe, plan, config)) is not None}


def method_of(kind: str, options: Mapping[str, object]) -> str | None:
    """The init method that ``options`` (of GPT-NeoX, defaults included) name for a layer type."""
    name = options.get("output_layer_init_method" if kind in OUTPUT else "init_method")
    return name if isinstance(name, str) and kind in RANDOM else None


def _expected(recipe: Recipe, plan: ConversionPlan, config: NeoxConfig) -> float | None:
    kind = layer_type(recipe.name)
    options = {name: config.get(name) for name in ("init_method", "output_layer_init_method", "init_method_std")}
    method = METHODS.get(method_of(kind, options) or "")
    shape = recipe.parts[0].tensor.shape
    if method is None or len(shape) != 2:
        return None
    network = plan.network
    return method(Facts(float(options["init_method_std"]), network.layers, network.hidden, *shape))
