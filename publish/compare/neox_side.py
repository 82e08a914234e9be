"""A raw checkpoint as a side: the conversion's plan says which bytes make a Hugging Face tensor; none is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

from publish.compare.initial import expected_stds
from publish.compare.side import Account, SideTensor
from publish.convert.blocks import check_identical, tensor_bytes
from publish.convert.hfconfig import hf_config
from publish.convert.plan import make_plan
from publish.convert.recipes import ConversionPlan
from publish.neox.checkpoint import RawCheckpoint
from publish.neox.config import NeoxConfig, read_config
from publish.neox.options import MAPPED
from publish.source.files import CheckpointFiles


class NeoxSide:
    """See `publish.compare.side.Side`."""

    format = "neox"

    def __init__(self, files: CheckpointFiles, step: int | None) -> None:
        """Open the checkpoint and plan its conversion.

        Raises:
            CheckpointError, ConfigError, ConversionError: as in a conversion.
        """
        self._checkpoint = RawCheckpoint.open(files, weights=False)
        self._config = read_config(self._checkpoint)
        self._plan = make_plan(self._checkpoint, self._config)
        self._recipes = {recipe.name: recipe for recipe in self._plan.recipes}
        self._files, self._step = files, step
        check_identical(self._checkpoint, self._plan.identical)

    @property
    def where(self) -> str:
        return self._checkpoint.where

    @cached_property
    def tensors(self) -> dict[str, SideTensor]:
        return {name: SideTensor(name, recipe.dtype, recipe.shape) for name, recipe in self._recipes.items()}

    @cached_property
    def account(self) -> Account:
        found = account_of(self._checkpoint, self._config, self._plan)
        return found if found.step is not None else replace(found, step=self._step)

    def want(self, names: Iterable[str]) -> None:
        ranges: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            for part in self._recipes[name].parts:
                ranges.setdefault(part.tensor.file, []).append((part.tensor.offset, part.tensor.span))
        for file, wanted in ranges.items():
            self._files.want(file, wanted)

    def chunks(self, name: str) -> Iterator[memoryview]:
        return tensor_bytes(self._checkpoint, self._recipes[name])

    def close(self) -> None:
        self._files.close()


def account_of(checkpoint: RawCheckpoint, config: NeoxConfig, plan: ConversionPlan) -> Account:
    """What a raw checkpoint says of itself."""
    return Account(
        step=checkpoint.state.iteration,
        options={name: config.get(name) for name in {*MAPPED, *config.options}},
        config=hf_config(plan, None, None),
        states=checkpoint.state.random_states,
        expected_std=expected_stds(plan, config),
    )
