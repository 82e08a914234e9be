"""The plots of a run: which there are, from the statistics in its manifests, drawn only where they changed.

``statistics["layer_types"][NAME]`` of a manifest has ``std``, ``from_first`` and ``from_previous``: the standard
deviation of all weights of that type, and their distance from step 0 and from the step before, relative to the norm
there; null or absent where there is none. Without statistics there are no plots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

from publish.cards.facts import Plot
from publish.hub.branch_files import BranchFile
from publish.hub.reads import TreeEntry
from publish.plots.comparison import ratio_plot
from publish.plots.records import Curve, Ratio
from publish.plots.run import distance_plot, spread_plot
from publish.plots.style import available
from publish.records.checkpoints import LAYER_TYPES, PlotRecord
from publish.records.manifest import Manifest
from publish.release.card_facts import ratio_path

FOLDER = "plots/"
# in the order of the model; norms and biases start as constants and would flatten the rest
SHOWN = ("embedding", "QKV", "attention dense", "MLP up", "MLP down", "unembedding")


@dataclass(frozen=True, slots=True)
class PlannedPlot:
    """A plot before it is drawn. ``facts`` is the sha256 of all figures in it."""

    plot: Plot
    facts: str
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class PlotsThere:
    """The plots that ``main`` has already: their records, and its files by path."""

    records: tuple[PlotRecord, ...] = ()
    files: Mapping[str, TreeEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MainPlots:
    """What ``main`` shows: the plots, and of each a record and its file, kept or drawn now."""

    plots: tuple[Plot, ...] = ()
    records: tuple[PlotRecord, ...] = ()
    files: tuple[BranchFile, ...] = ()

    @property
    def drawn(self) -> tuple[BranchFile, ...]:
        """Those that are not on ``main`` as they should be."""
        return tuple(file for file in self.files if file.content is not None)


def plan_plots(manifests: Mapping[int, Manifest]) -> tuple[PlannedPlot, ...]:
    """The plots that the statistics of all steps give."""
    spread, first, previous = (_curves(manifests, key) for key in ("std", "from_first", "from_previous"))
    plans = []
    if spread:
        plot = Plot(f"Standard deviation of the weights over training: {_ends(spread)}.", f"{FOLDER}std.svg")
        plans.append(PlannedPlot(plot, _digest(spread), partial(spread_plot, spread)))
    if first and previous:
        words = f"Distance of the weights from step 0 and from the checkpoint before, relative: {_ends(first)}."
        plot = Plot(words, f"{FOLDER}distance.svg")
        plans.append(PlannedPlot(plot, _digest((*first, *previous)), partial(distance_plot, first, previous)))
    return (*plans, *_ratio_plots(manifests))


def _ratio_plots(manifests: Mapping[int, Manifest]) -> Iterator[PlannedPlot]:
    """One plot for each comparison that has ratios."""
    for step, manifest in manifests.items():
        for number, each in enumerate(manifest.comparisons, 1):
            if each.ratios:
                values = "; ".join(f"{ratio.layer_type} {ratio.ratio:.3f}" for ratio in each.ratios)
                plot = Plot(f"Ratios of standard deviations. {each.title}: {values}.", ratio_path(step, number))
                yield PlannedPlot(plot, _digest(each.ratios, each.title), partial(ratio_plot, each.ratios, each.title))


def main_plots(manifests: Mapping[int, Manifest], there: PlotsThere | None = None) -> MainPlots:
    """The plots of ``main``. One that is ``there`` as recorded, from the same figures, is not drawn again.

    Without matplotlib a plot stays as it is there, and one that is not there yet is left out.
    """
    there = there or PlotsThere()
    known = {record.path: record for record in there.records}
    shown: list[tuple[Plot, PlotRecord, BranchFile]] = []
    for planned in plan_plots(manifests):
        path = planned.plot.path
        record, entry = known.get(path), there.files.get(path)
        as_recorded = record is not None and entry is not None and entry.oid == record.oid
        if record and entry and as_recorded and (record.facts == planned.facts or not available()):
            shown.append((planned.plot, record, BranchFile.kept(entry)))
        elif available():
            file = BranchFile.of_bytes(path, planned.draw())
            shown.append((planned.plot, PlotRecord(path, planned.facts, file.git_sha1()), file))
    plots, records, files = zip(*shown, strict=True) if shown else ((), (), ())
    return MainPlots(plots, records, files)


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


def _digest(records: Iterable[Curve | Ratio], title: str = "") -> str:
    return hashlib.sha256(json.dumps([title, *map(asdict, records)]).encode()).hexdigest()
