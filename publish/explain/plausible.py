"""Init methods that the weights themselves allow, for where no training config states them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from publish.explain.construction import INIT, OUTPUT, role
from publish.explain.methods import NORMAL, Methods, Scale
from publish.explain.subject import Shard, Subject, with_methods

_SAMPLE = 1 << 16
_ERRORS = 6  # standard errors of a standard deviation that a method may be off
_ROUNDING = 2.0**-8  # relative, of the coarsest dtype


def plausible_subjects(subject: Subject, layers: int, hidden: int, sigmas: Sequence[float]) -> Iterator[Subject]:
    """The subject with every pair of methods that its weights allow; as it is, with a note, where there is none."""
    methods = plausible_methods(subject.shards[0], layers, hidden, sigmas)
    if not methods:
        note = f"no init method of GPT-NeoX has the standard deviations measured ({measured(subject.shards[0])})"
        yield replace(subject, notes=(*subject.notes, note))
    for each in methods:
        scale = Scale(layers, hidden, each.sigma, ())
        yield replace(subject, shards=tuple(with_methods(rank, each, scale) for rank in subject.shards))


def plausible_methods(shards: Mapping[str, Shard], layers: int, hidden: int, sigmas: Sequence[float]) -> list[Methods]:
    """Methods whose standard deviations the shards of one rank have, within sampling error; none, one or several.

    ``sigmas`` are the values that ``init-method-std`` may have had.
    """
    inits = list(_fitting(_of(shards, INIT), layers, hidden, sigmas))
    outputs = list(_fitting(_of(shards, OUTPUT), layers, hidden, sigmas))
    return [
        Methods(init, output, sigma)
        for init, sigma in inits
        for output, other in outputs
        if sigma == other or "normal" not in (init[-6:], output[-6:])
    ]


def measured(shards: Mapping[str, Shard]) -> str:
    """The standard deviations as measured, for people."""
    parts = [(name, _std(shard)) for which in (INIT, OUTPUT) for name, shard in _of(shards, which)[:1]]
    return ", ".join(f"{name} {std:.5f}" for name, std in parts)


def _of(shards: Mapping[str, Shard], which: str) -> list[tuple[str, Shard]]:
    """The first two tensors that this method of the run's two draws."""
    return [(name, shard) for name, shard in shards.items() if role(name) == which][:2]


def _fitting(
    samples: Sequence[tuple[str, Shard]], layers: int, hidden: int, sigmas: Sequence[float]
) -> Iterator[tuple[str, float]]:
    seen: set[tuple[float, ...]] = set()
    stds = [(shard, _std(shard)) for _, shard in samples]
    for sigma in sigmas:
        for name, method in NORMAL.items():
            due = tuple(method(Scale(layers, hidden, sigma, shard.shape)) for shard, _ in stds)
            close = all(
                abs(std / expected - 1) <= _ROUNDING + _ERRORS / math.sqrt(2 * min(shard.elements, _SAMPLE))
                for (shard, std), expected in zip(stds, due, strict=True)
            )
            if close and due not in seen:
                seen.add(due)
                yield name, sigma


def _std(shard: Shard) -> float:
    with np.errstate(invalid="ignore"):
        return float(shard.head(_SAMPLE).astype(np.float64).std())
