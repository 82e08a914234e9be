"""Plots of a whole run: how layer types spread, and how far they move. Steps on a log axis that begins at 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publish.plots.records import Curve
from publish.plots.style import SERIES, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LINE = 12.0  # points from one name at the right edge to the next


def spread_plot(curves: Sequence[Curve]) -> bytes:
    """Standard deviation of each layer type over steps, as SVG."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        _panel(axes, curves, "Standard deviation of the weights, by layer type", 2.5)
        _steps(axes, curves)

    return draw(3.3, fill)


def distance_plot(from_first: Sequence[Curve], from_previous: Sequence[Curve]) -> bytes:
    """Relative distance from the initial weights, and from the checkpoint before, over steps, as SVG."""

    def fill(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        _panel(above, from_first, "Distance from step 0, relative to its norm", 2.2)
        _panel(below, from_previous, "Distance from the checkpoint before, relative to its norm", 2.2)
        above.tick_params(labelbottom=False, length=0)
        _steps(below, from_previous)

    return draw(5.8, fill)


def _panel(axes: Axes, curves: Sequence[Curve], title: str, height: float) -> None:
    """The curves in ``axes`` of about ``height`` inches."""
    axes.set_title(title)
    for curve, colour in zip(curves, SERIES, strict=False):
        points = [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if value is not None]
        axes.plot([step for step, _ in points], [value for _, value in points], color=colour.light, label=curve.name)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    _names(axes, curves, _LINE / (72 * height))


def _steps(axes: Axes, curves: Sequence[Curve]) -> None:
    last = max(step for curve in curves for step in curve.steps)
    ticks = [0, *(10**power for power in range(len(str(last))) if 10**power <= last)]
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.1, last * 1.05)
    axes.set_xlabel("Training step (log scale from 1 on)")


def _names(axes: Axes, curves: Sequence[Curve], gap: float) -> None:
    """Each curve's name at its end, in its own colour's place, moved apart where two would overlap."""
    low, high = axes.get_ylim()
    ends = [next((value for value in reversed(curve.values) if value is not None), 0.0) for curve in curves]
    wished = [(end - low) / (high - low) for end in ends]
    for index, (place, colour) in enumerate(zip(_apart(wished, gap), SERIES, strict=False)):
        axes.annotate(
            curves[index].name,
            xy=(1.0, wished[index]),
            xytext=(1.07, place),
            xycoords="axes fraction",
            va="center",
            fontsize=8.5,
            arrowprops={
                "arrowstyle": "-",
                "color": colour.light,
                "linewidth": 1.1,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )


def _apart(wished: Sequence[float], gap: float) -> list[float]:
    """``wished`` heights moved to be at least ``gap`` apart, and below 1."""
    order = sorted(range(len(wished)), key=lambda index: wished[index])
    places = [0.0] * len(wished)
    floor = 0.0
    for index in order:
        places[index] = max(wished[index], floor)
        floor = places[index] + gap
    ceiling = 1.0
    for index in reversed(order):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
