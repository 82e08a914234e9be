"""The plots of a run: which there are, from the statistics in its manifests, drawn only where they changed.

``statistics["layer_types"][NAME]`` of a manifest has ``std``, ``from_first`` and ``from_previous``: the standard
deviation of all weights of that type, and their distance from step 0 and from the step before, relative to the norm
there; null or absent where there is none. Without statistics there are no plots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

from publish.card.facts import Plot
from publish.hub.branchfile import BranchFile
from publish.hub.checkpoints import LAYER_TYPES, PlotRecord
from publish.hub.manifest import Manifest
from publish.plots.records import Curve
from publish.plots.svg import available
from publish.plots.training import distance_plot, spread_plot
from publish.wire.repo import TreeEntry

# in the order of the model; norms and biases start as constants and would flatten the rest
SHOWN = ("embedding", "QKV", "attention dense", "MLP up", "MLP down", "unembedding")


@dataclass(frozen=True, slots=True)
class PlannedPlot:
    """A plot before it is drawn. ``facts`` is the sha256 of all figures in it."""

    plot: Plot
    facts: str
    draw: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class MainPlots:
    """What ``main`` shows: the plots, a record of each, and the files of those that were drawn now."""

    plots: tuple[Plot, ...] = ()
    records: tuple[PlotRecord, ...] = ()
    drawn: tuple[BranchFile, ...] = ()


def plan_plots(manifests: Mapping[int, Manifest]) -> tuple[PlannedPlot, ...]:
    """The plots that the statistics of all steps give."""
    spread, first, previous = (_curves(manifests, key) for key in ("std", "from_first", "from_previous"))
    plans = []
    if spread:
        plot = Plot(f"Standard deviation of the weights over training: {_ends(spread)}.", "plots/std.svg")
        plans.append(PlannedPlot(plot, _digest(spread), lambda: spread_plot(spread)))
    if first and previous:
        words = f"Distance of the weights from step 0 and from the checkpoint before, relative: {_ends(first)}."
        plot = Plot(words, "plots/distance.svg")
        plans.append(PlannedPlot(plot, _digest((*first, *previous)), lambda: distance_plot(first, previous)))
    return tuple(plans)


def main_plots(
    manifests: Mapping[int, Manifest],
    recorded: Iterable[PlotRecord] = (),
    there: Mapping[str, TreeEntry] | None = None,
) -> MainPlots:
    """The plots of ``main``. One that is ``there`` as recorded, from the same figures, is not drawn again.

    Without matplotlib a plot stays as it is there, and one that is not there yet is left out.
    """
    known = {record.path: record for record in recorded}
    plots, records, drawn = [], [], []
    for planned in plan_plots(manifests):
        path = planned.plot.path
        record, entry = known.get(path), (there or {}).get(path)
        as_recorded = record is not None and entry is not None and entry.oid == record.oid
        if record is not None and as_recorded and (record.facts == planned.facts or not available()):
            records.append(record)
        elif available():
            file = BranchFile.of_bytes(path, planned.draw())
            records.append(PlotRecord(path, planned.facts, file.git_sha1()))
            drawn.append(file)
        else:
            continue
        plots.append(planned.plot)
    return MainPlots(tuple(plots), tuple(records), tuple(drawn))


def _curves(manifests: Mapping[int, Manifest], key: str) -> tuple[Curve, ...]:
    """One curve for each shown layer type that has the figure ``key`` at more than one step."""
    curves = []
    for name in SHOWN:
        found = [(step, _figure(manifest, name, key)) for step, manifest in manifests.items()]
        values = [(step, value) for step, value in found if value is not None]
        if len(values) > 1:
            curves.append(Curve(name, tuple(step for step, _ in values), tuple(value for _, value in values)))
    return tuple(curves)


def _figure(manifest: Manifest, layer_type: str, key: str) -> float | None:
    types = (manifest.statistics or {}).get(LAYER_TYPES)
    figures = types.get(layer_type) if isinstance(types, Mapping) else None
    value = figures.get(key) if isinstance(figures, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _ends(curves: Iterable[Curve]) -> str:
    """For those who do not see the plot: each curve's first and last value."""
    return "; ".join(f"{each.name} {each.values[0]:.3g} to {each.values[-1]:.3g}" for each in curves)


def _digest(curves: Iterable[Curve]) -> str:
    return hashlib.sha256(json.dumps([asdict(curve) for curve in curves]).encode()).hexdigest()
