"""A model that is compared: its tensors under their Hugging Face names and their layer types, and its provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

from publish.checkpoints import find_checkpoint, open_checkpoint
from publish.convert.hfconfig import hf_config
from publish.convert.plan import ConversionPlan, Recipe, make_plan
from publish.convert.writer import check_identical, tensor_bytes
from publish.dtypes import DTYPES, WEIGHT_DTYPES
from publish.errors import SourceError
from publish.explain.construction import NORMAL_STDS, Scale
from publish.explain.stored import stored_generators, stored_rng_state
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import MAPPED, NeoxConfig, read_config
from publish.records.manifest import RngState
from publish.sources.runs import Location

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
_COMPARED = (*WEIGHT_DTYPES, "float64")
# saved by GPTNeoXAttention and by Llama's in transformers before 4.32; computed, not trained
_BUFFERS = re.compile(r"\.(attention\.bias|masked_bias|rotary_emb\.inv_freq)$")


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


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """A tensor of a model; ``dtype`` as numpy and torch spell it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Provenance:
    """What a model states of its origin; what it does not state is None or empty.

    ``options`` are GPT-NeoX's own, defaults included; ``config`` is the Hugging Face one; ``states`` maps a random
    generator to the digest of its stored state, and ``rng_state`` is what these states reveal; ``expected_std`` maps a
    tensor to the standard deviation that its init method predicts.
    """

    step: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    rng_state: RngState | None = None
    expected_std: Mapping[str, float] = field(default_factory=dict)


class OpenModel(Protocol):
    """A model that is read tensor by tensor. Opening it reads no weight."""

    @property
    def where(self) -> str: ...

    @property
    def format(self) -> str:
        """``hf`` or ``neox``."""
        ...

    @property
    def tensors(self) -> Mapping[str, ModelTensor]:
        """Every parameter by its Hugging Face name, in the order in which reading is cheapest."""
        ...

    @property
    def provenance(self) -> Provenance: ...

    def prefetch(self, names: Iterable[str]) -> None:
        """Announce that these tensors are read next."""
        ...

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The stored bytes in order, little endian, row-major, whole elements; a chunk is not overwritten later."""
        ...

    def close(self) -> None: ...


class HfModel:
    """A Hugging Face checkpoint as an `OpenModel`."""

    format = "hf"

    def __init__(self, checkpoint: HfCheckpoint, step: int | None) -> None:
        """``step`` is what the checkpoint's location states; its ``publish.json`` takes precedence.

        Raises:
            SourceError: a parameter is not of a floating point dtype.
        """
        self._checkpoint, self._step = checkpoint, step
        self.tensors: Mapping[str, ModelTensor] = {
            name: ModelTensor(name, tensor.dtype, tensor.shape)
            for name, tensor in checkpoint.tensors.items()
            if not _BUFFERS.search(name)
        }
        for tensor in self.tensors.values():
            if tensor.dtype not in _COMPARED:
                what = f"{tensor.name} is {tensor.dtype}, which cannot be compared"
                raise SourceError(what, checkpoint.where, f"compare tensors of {', '.join(_COMPARED)}")

    @property
    def where(self) -> str:
        return self._checkpoint.where

    @cached_property
    def provenance(self) -> Provenance:
        step = self._checkpoint.step
        return Provenance(step=self._step if step is None else step, config=self._checkpoint.config)

    def prefetch(self, names: Iterable[str]) -> None:
        self._checkpoint.prefetch(names)

    def chunks(self, name: str) -> Iterator[memoryview]:
        return self._checkpoint.chunks(self._checkpoint.tensors[name])

    def close(self) -> None:
        self._checkpoint.files.close()


class NeoxModel:
    """A raw checkpoint as an `OpenModel`: its conversion plan says which bytes make a tensor; nothing is written."""

    format = "neox"

    def __init__(self, checkpoint: RawCheckpoint, step: int | None) -> None:
        """Plan the conversion. ``step`` is what the checkpoint's location states; its own iteration takes precedence.

        Raises:
            CheckpointError, ConfigError, ConversionError: as in a conversion.
        """
        self._checkpoint, self._step = checkpoint, step
        self._config = read_config(checkpoint)
        self._plan = make_plan(checkpoint, self._config)
        self._recipes = {recipe.name: recipe for recipe in self._plan.recipes}
        check_identical(checkpoint, self._plan.identical)

    @property
    def where(self) -> str:
        return self._checkpoint.where

    @cached_property
    def tensors(self) -> dict[str, ModelTensor]:
        return {name: ModelTensor(name, recipe.dtype, recipe.shape) for name, recipe in self._recipes.items()}

    @cached_property
    def provenance(self) -> Provenance:
        found = provenance_of(self._checkpoint, self._config, self._plan)
        return found if found.step is not None else replace(found, step=self._step)

    def prefetch(self, names: Iterable[str]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            for part in self._recipes[name].slices:
                ranges.setdefault(part.tensor.file, []).append((part.tensor.offset, part.tensor.span))
        for file, wanted in ranges.items():
            self._checkpoint.files.prefetch(file, wanted)

    def chunks(self, name: str) -> Iterator[memoryview]:
        return tensor_bytes(self._checkpoint, self._recipes[name])

    def close(self) -> None:
        self._checkpoint.files.close()


def provenance_of(checkpoint: RawCheckpoint, config: NeoxConfig, plan: ConversionPlan) -> Provenance:
    """What a raw checkpoint states of its origin."""
    return Provenance(
        step=checkpoint.state.iteration,
        options={name: config.get(name) for name in {*MAPPED, *config.options}},
        config=hf_config(plan, None, None),
        states=checkpoint.state.random_states,
        rng_state=stored_rng_state(stored_generators(checkpoint), checkpoint.tensor_parallel),
        expected_std=expected_stds(plan, config),
    )


def open_model(location: Location, step: int | None = None) -> OpenModel:
    """The model at ``location``; ``step`` selects one if the location is a run. On a Hub, no file is kept on disk.

    Raises:
        SourceError: a run without a step, or without this one. HubError: no access, no connection.
        PublishError: as the formats raise.
    """
    ref, files = find_checkpoint(location, step, stream=True)
    try:
        checkpoint = open_checkpoint(files)
        if isinstance(checkpoint, HfCheckpoint):
            return HfModel(checkpoint, ref.step)
        return NeoxModel(checkpoint, ref.step)
    except BaseException:
        files.close()
        raise


# ---- the standard deviations that init methods predict

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
    kind, shape = layer_type(recipe.name), recipe.slices[0].tensor.shape  # a rank draws its own shard
    method = _METHODS.get(str(config.get("output_layer_init_method" if kind in _OUTPUT else "init_method")))
    if kind not in RANDOM or method is None or len(shape) != 2:
        return None
    return method(Scale(plan.network.layers, plan.network.hidden, float(config.get("init_method_std")), shape))
