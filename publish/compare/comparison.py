"""Two sides compared: one pass over the tensors that both have, a layer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from publish.compare.layers import by_layer, layer_type
from publish.compare.pair import BITWISE, DIFFERENT, ZERO_SIGN, Pair, PairStatistics, Scratch, side_by_side
from publish.compare.side import Account, Side, SideTensor

ONLY_LEFT, ONLY_RIGHT, SHAPE = "only-left", "only-right", "shape-mismatch"


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor. ``outcome`` is one of `BITWISE`, `ZERO_SIGN`, `DIFFERENT`, `SHAPE`, `ONLY_LEFT`, `ONLY_RIGHT`.

    ``statistics`` is None where the tensors cannot be laid side by side.
    """

    name: str
    kind: str
    left: SideTensor | None
    right: SideTensor | None
    outcome: str
    statistics: PairStatistics | None = None


@dataclass(frozen=True, slots=True)
class SideFacts:
    """What a report says of a side beyond its tensors."""

    where: str
    format: str
    account: Account = field(default_factory=Account)


@dataclass(frozen=True)
class Comparison:
    """All tensors of either side, in the left side's order."""

    left: SideFacts
    right: SideFacts
    tensors: tuple[TensorComparison, ...]

    def count(self, outcome: str) -> int:
        return sum(tensor.outcome == outcome for tensor in self.tensors)

    @property
    def compared(self) -> Mapping[str, tuple[TensorComparison, PairStatistics]]:
        """The tensors that were laid side by side, by name."""
        return {each.name: (each, each.statistics) for each in self.tensors if each.statistics is not None}

    @property
    def common(self) -> int:
        """Tensors that both sides have, whatever their shape."""
        return sum(map(self.count, (BITWISE, ZERO_SIGN, DIFFERENT, SHAPE)))


def compare(left: Side, right: Side) -> Comparison:
    """Read both sides once and compare what they share.

    Memory is bounded by the chunks in flight, not by the model. Raises what reading raises.
    """
    ours, theirs = left.tensors, right.tensors
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    done: dict[str, PairStatistics] = {}
    scratch = Scratch()
    for names in by_layer(shared).values():
        left.want(names)
        right.want(names)
        done |= {name: _pair(left, right, name, scratch) for name in names}
    tensors = [_judged(name, ours.get(name), theirs.get(name), done.get(name)) for name in {**ours, **theirs}]
    return Comparison(_facts(left), _facts(right), tuple(tensors))


def _pair(left: Side, right: Side, name: str, scratch: Scratch) -> PairStatistics:
    ours, theirs = left.tensors[name], right.tensors[name]
    pair = Pair(ours.dtype, theirs.dtype, scratch)
    for chunks in side_by_side(left.chunks(name), right.chunks(name), (ours.itemsize, theirs.itemsize)):
        pair.add(*chunks)
    return pair.result()


def _judged(
    name: str, left: SideTensor | None, right: SideTensor | None, statistics: PairStatistics | None
) -> TensorComparison:
    if statistics is not None:
        outcome = statistics.outcome
    else:
        outcome = ONLY_LEFT if right is None else ONLY_RIGHT if left is None else SHAPE
    return TensorComparison(name, layer_type(name), left, right, outcome, statistics)


def _facts(side: Side) -> SideFacts:
    return SideFacts(side.where, side.format, side.account)
