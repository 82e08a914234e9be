"""The plot of a comparison for its own sake: standard deviations of both sides by layer type, and their ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publish.plots.picture import picture
from publish.plots.records import ComparedType
from publish.plots.theme import INK, SERIES, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAR = 0.38


def comparison_plot(types: Sequence[ComparedType], title: str, sides: tuple[str, str], ending: str) -> bytes:
    """A picture of the format ``ending`` (.svg, .png, .pdf); ``sides`` name the left and the right model.

    Raises:
        ReleaseError: no such format. CardError: matplotlib is not installed.
    """

    def fill(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _deviations(above, types, sides)
        _ratios(below, types)
        below.set_xticks(range(len(types)), [each.name for each in types])
        figure.suptitle(title, fontsize=10, color=INK.light)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)

    return picture(4.4, fill, ending)


def _deviations(axes: Axes, types: Sequence[ComparedType], sides: tuple[str, str]) -> None:
    for number, side in enumerate(sides):
        heights = [(each.left, each.right)[number] for each in types]
        places = [at + (number - 0.5) * _BAR for at in range(len(types))]
        axes.bar(places, heights, _BAR, color=SERIES[number].light, label=side)
    for at, each in enumerate(types):
        if each.predicted is not None:
            axes.hlines(
                each.predicted, at - _BAR - 0.05, at + _BAR + 0.05, color=INK.light, linestyle="--", linewidth=1
            )
    axes.set_ylabel("Standard deviation")


def _ratios(axes: Axes, types: Sequence[ComparedType]) -> None:
    drawn = [(at, each.ratio, each.chance) for at, each in enumerate(types) if each.ratio and each.chance]
    axes.axhline(1, color=SOFT.light, linewidth=1)
    axes.errorbar(
        [at for at, _, _ in drawn],
        [ratio for _, ratio, _ in drawn],
        yerr=[chance for _, _, chance in drawn],
        fmt="o",
        markersize=4,
        color=SERIES[0].light,
        ecolor=INK.light,
        capsize=3,
    )
    axes.set_ylabel("Ratio, and what chance allows")
