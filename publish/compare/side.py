"""One of two models to compare: its tensors by Hugging Face name, read in passing, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from publish.explain.answer import Origin
from publish.neox.torchfile import ITEM_SIZES


@dataclass(frozen=True, slots=True)
class SideTensor:
    """A tensor of a side; ``dtype`` as numpy and torch spell it."""

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
class Account:
    """What a side says of itself, empty where it is silent.

    ``options`` are GPT-NeoX's own, defaults included; ``config`` is the Hugging Face one; ``states`` maps a random
    generator to the digest of its state, and ``origin`` is what these states tell; ``expected_std`` maps a tensor to
    the deviation that its init method predicts.
    """

    step: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    expected_std: Mapping[str, float] = field(default_factory=dict)


class Side(Protocol):
    """A model that can be read tensor by tensor. Nothing but its indices is read to open it."""

    @property
    def where(self) -> str: ...

    @property
    def format(self) -> str:
        """``hf`` or ``neox``."""
        ...

    @property
    def tensors(self) -> Mapping[str, SideTensor]:
        """Every parameter by its Hugging Face name, in the order in which it is best read."""
        ...

    @property
    def account(self) -> Account: ...

    def want(self, names: Iterable[str]) -> None:
        """These tensors are read next."""
        ...

    def chunks(self, name: str) -> Iterator[memoryview]:
        """The stored bytes in order, little endian, row-major, whole elements; a chunk stays what it is."""
        ...

    def close(self) -> None: ...
