"""A model that is compared: its tensors under their Hugging Face names, read once, and what it states of its origin."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from publish.checkpoints import find_checkpoint, open_checkpoint
from publish.compare.layers import expected_stds
from publish.convert.blocks import check_identical, tensor_bytes
from publish.convert.hfconfig import hf_config
from publish.convert.plan import ConversionPlan, make_plan
from publish.errors import SourceError
from publish.explain.stored import RngState, stored_generators, stored_rng_state
from publish.formats.torch_archive import ITEM_SIZES
from publish.hf.checkpoint import HfCheckpoint
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.options import MAPPED
from publish.sources.runs import Location

_DTYPES = ("float16", "bfloat16", "float32", "float64")
# saved by GPTNeoXAttention and by Llama's in transformers before 4.32; computed, not trained
_BUFFERS = re.compile(r"\.(attention\.bias|masked_bias|rotary_emb\.inv_freq)$")


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
        return ITEM_SIZES[self.dtype]


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
            if tensor.dtype not in _DTYPES:
                what = f"{tensor.name} is {tensor.dtype}, which cannot be compared"
                raise SourceError(what, checkpoint.where, f"compare tensors of {', '.join(_DTYPES)}")

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
            for part in self._recipes[name].parts:
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
