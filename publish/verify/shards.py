"""Tensors of a raw checkpoint as float numbers, rank by rank, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from publish.errors import GateError
from publish.neox.checkpoint import RawCheckpoint, RawTensor

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 18  # elements that are upcast at a time


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How the pass treats numbers; the default is GPT-NeoX's network, computed in float32.

    ``held_in``: weights as a file of this dtype can hold them. Biases that are summed over ranks are then rounded
    once; tensors of another dtype are cast. ``stored_frequencies``: rotate by the checkpoint's own ``inv_freq`` where
    it has one (2023 files hold it in float16), not by frequencies computed in float32.
    ``compute``: the dtype of the arithmetic.
    """

    held_in: str | None = None
    stored_frequencies: bool = False
    compute: str = "float32"


@dataclass(frozen=True, slots=True)
class Shards:
    """The tensors of every rank, upcast when asked for and kept by nobody."""

    checkpoint: RawCheckpoint
    arithmetic: Arithmetic

    @property
    def ranks(self) -> int:
        return self.checkpoint.tensor_parallel

    def has(self, name: str) -> bool:
        return name in self.checkpoint.ranks[0]

    def find(self, rank: int, name: str) -> RawTensor:
        """The tensor ``name`` of ``rank``.

        Raises:
            GateError: the network needs it and the checkpoint has none.
        """
        found = self.checkpoint.ranks[rank].get(name)
        if found is None:
            raise GateError(
                f"the network needs {name} of rank {rank}, which the checkpoint has not",
                self.checkpoint.where,
                "check the config against the checkpoint",
            )
        return found

    def rows(self, rank: int, name: str, start: int = 0, count: int | None = None) -> torch.Tensor:
        """Rows of a tensor, in the dtype of the arithmetic, rounded to ``held_in`` first."""
        import torch

        tensor = self.find(rank, name)
        numbers = as_tensor(self.checkpoint.read(tensor, start, count), tensor.dtype)
        if self.arithmetic.held_in is not None and self.arithmetic.held_in != tensor.dtype:
            numbers = numbers.to(getattr(torch, self.arithmetic.held_in))
        return numbers.to(getattr(torch, self.arithmetic.compute))

    def optional(self, rank: int, name: str) -> torch.Tensor | None:
        """A whole small tensor, None where the network has none."""
        return self.rows(rank, name) if self.has(name) else None

    def multiply(self, x: torch.Tensor, rank: int, name: str) -> torch.Tensor:
        """x W^T: ``x`` (..., in), W (out, in) of ``rank``, result (..., out)."""
        import torch

        product, at = torch.empty(*x.shape[:-1], self.find(rank, name).shape[0], dtype=x.dtype), 0
        for block in self.products(x, rank, name):
            product[..., at : at + block.shape[-1]] = block
            at += block.shape[-1]
        return product

    def products(self, x: torch.Tensor, rank: int, name: str) -> Iterator[torch.Tensor]:
        """:meth:`multiply` in blocks of W's rows, at most `BLOCK` elements of W at once."""
        out, width = self.find(rank, name).shape
        step = max(1, BLOCK // max(1, width))
        for start in range(0, out, step):
            yield x @ self.rows(rank, name, start, min(step, out - start)).T

    def summed_bias(self, rank: int, name: str) -> torch.Tensor | None:
        """What ``rank`` adds before the all-reduce; with ``held_in`` rank 0 adds the rounded sum, the others nothing.

        With gpt-j-residual every rank adds its own bias, so the network's bias is their sum, which a file holds
        rounded (gpt-neox ``megatron/model/transformer.py``, ParallelTransformerLayer).
        """
        import torch

        if not self.has(name):
            return None
        held_in = self.arithmetic.held_in
        if held_in is None or self.ranks == 1:
            return self.rows(rank, name)
        if rank:
            return None
        exact = Shards(self.checkpoint, Arithmetic())
        total = exact.rows(0, name)
        for other in range(1, self.ranks):
            total = total + exact.rows(other, name)
        return total.to(getattr(torch, held_in)).to(getattr(torch, self.arithmetic.compute))


def as_tensor(array: np.ndarray[Any, Any], dtype: str) -> torch.Tensor:
    """``array`` as a torch tensor of the same bits; bfloat16 comes as uint16."""
    import torch

    if not array.flags.writeable:
        array = array.copy()
    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
