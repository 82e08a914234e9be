"""The plots of ``main``: which there are, from the records of all steps, drawn only where their figures changed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial

from publish import plots
from publish.cards.facts import Plot, comparison_title, numbered_comparisons, ratio_path
from publish.hub.branch_files import BranchFile
from publish.hub.reads import TreeEntry
from publish.plots import Curve, distance_plot, ratio_plot, spread_plot
from publish.records.checkpoints import CheckpointRecord, PlotRecord

# in the order of the model; norms and biases start as constants and would flatten the rest
PLOTTED = ("embedding", "QKV", "attention dense", "MLP up", "MLP down", "unembedding")


@dataclass(frozen=True, slots=True)
class PlannedPlot:
    """A plot before it is drawn, and a sha256 of all figures in it."""

    plot: Plot
    figures_sha256: str
    draw: Callable[[], bytes]


@dataclass(frozen=True)
class PlotsThere:
    """The plots that ``main`` has already: their records, and its files by path."""

    records: tuple[PlotRecord, ...] = ()
    files: Mapping[str, TreeEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MainPlots:
    """What ``main`` shows: the plots, with their records and their files, kept or drawn now."""

    plots: tuple[Plot, ...] = ()
    records: tuple[PlotRecord, ...] = ()
    files: tuple[BranchFile, ...] = ()

    @property
    def drawn(self) -> tuple[BranchFile, ...]:
        """Those that ``main`` does not have yet, or not like this."""
        return tuple(file for file in self.files if file.content is not None)


def main_plots(records: Sequence[CheckpointRecord], there: PlotsThere) -> MainPlots:
    """The plots of ``main``. One that is ``there`` as recorded, from the same figures, is not drawn again.

    Without matplotlib a plot that is there stays, and one that is not there yet is left out.
    """
    known = {record.path: record for record in there.records}
    shown: list[tuple[Plot, PlotRecord, BranchFile]] = []
    for planned in plan_plots(records):
        path = planned.plot.path
        record, entry = known.get(path), there.files.get(path)
        as_recorded = record is not None and entry is not None and entry.oid == record.oid
        same_figures = record is not None and record.figures_sha256 == planned.figures_sha256
        if record and entry and as_recorded and (same_figures or not plots.available()):
            shown.append((planned.plot, record, BranchFile.kept(entry)))
        elif plots.available():
            file = BranchFile.of_bytes(path, planned.draw())
            shown.append((planned.plot, PlotRecord(path, planned.figures_sha256, file.git_sha1()), file))
    pictures, recorded, files = zip(*shown, strict=True) if shown else ((), (), ())
    return MainPlots(pictures, recorded, files)


def plan_plots(records: Sequence[CheckpointRecord]) -> Iterator[PlannedPlot]:
    """The plots that the figures of all steps give: spread, distances, and one for each comparison with ratios."""
    stds = _curves({record.step: {t.name: t.std for t in record.manifest.layer_types} for record in records})
    first = _curves({record.step: {d.layer_type: d.from_first for d in record.distances} for record in records})
    previous = _curves({record.step: {d.layer_type: d.from_previous for d in record.distances} for record in records})
    if stds:
        alt = f"Standard deviation of the weights over training: {_ends(stds)}."
        yield PlannedPlot(Plot(alt, "plots/std.svg"), _digest(stds), partial(_draw, spread_plot, stds))
    if first and previous:
        alt = f"Distance of the weights from step 0 and from the checkpoint before, relative: {_ends(first)}."
        draw = partial(_draw, distance_plot, first, previous)
        yield PlannedPlot(Plot(alt, "plots/distance.svg"), _digest((*first, *previous)), draw)
    for step, number, comparison in numbered_comparisons(record.manifest for record in records):
        if comparison.ratios:
            title = comparison_title(step, comparison)
            values = "; ".join(f"{name} {ratio:.3f}" for name, ratio, _ in comparison.ratios)
            plot = Plot(f"Ratios of standard deviations. {title}: {values}.", ratio_path(step, number))
            yield PlannedPlot(plot, _digest(comparison.ratios, title), partial(ratio_plot, comparison, title))


@functools.lru_cache(maxsize=16)
def _draw(plot: Callable[..., bytes], *curves: tuple[Curve, ...]) -> bytes:
    """Each plot once: ``main`` is compared with what it should be and then written, from the same figures."""
    return plot(*curves)


def _curves(figures: Mapping[int, Mapping[str, float | None]]) -> tuple[Curve, ...]:
    """A curve for every plotted layer type that has a figure at more than one step; ``figures`` are by step."""
    curves = []
    for name in PLOTTED:
        values = {step: types[name] for step, types in figures.items() if types.get(name) is not None}
        if len(values) > 1:
            curves.append(Curve(name, tuple(values), tuple(values.values())))
    return tuple(curves)


def _ends(curves: Iterable[Curve]) -> str:
    """For readers who do not see the plot: the first and last value of every curve."""
    return "; ".join(f"{curve.name} {curve.values[0]:.3g} to {curve.values[-1]:.3g}" for curve in curves)


def _digest(figures: Iterable[Curve | tuple[str, float, float]], title: str = "") -> str:
    values = [astuple(figure) if isinstance(figure, Curve) else figure for figure in figures]
    return hashlib.sha256(json.dumps([title, *values]).encode()).hexdigest()
