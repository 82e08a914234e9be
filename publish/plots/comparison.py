"""The plot of a comparison for its own sake: standard deviations of both sides by layer type, and their ratio."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from publish.plots.records import ComparedType, Ratio
from publish.plots.style import INK, SERIES, SOFT, draw, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The plot of a comparison: the ratio of standard deviations by layer type, with its sampling error.


_LINE = 46  # characters of a title in one line
SIGMAS = 1.96  # of a normal distribution, 95 % lie within


def ratio_plot(ratios: Sequence[Ratio], title: str) -> bytes:
    """Ratios as points with 95 % error bars, one line a layer type, the first on top, as SVG."""
    lines = textwrap.wrap(_printable(title), _LINE, max_lines=3, placeholder=" ...")

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title("\n".join(lines))
        places = range(len(ratios))
        axes.axvline(1, color=SOFT.light, linewidth=1)
        axes.errorbar(
            [each.ratio for each in ratios],
            places,
            xerr=[SIGMAS * each.error for each in ratios],
            fmt="o",
            markersize=5,
            color=SERIES[0].light,
            ecolor=SERIES[0].light,
            elinewidth=1.5,
            capsize=3,
        )
        axes.set_yticks(places, [_printable(each.layer_type) for each in ratios], color=INK.light)
        axes.invert_yaxis()
        axes.margins(y=0.12)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        furthest = max(abs(each.ratio - 1) + SIGMAS * each.error for each in ratios) * 1.15 or 0.01
        axes.set_xlim(1 - furthest, 1 + furthest)
        axes.set_xlabel("Ratio of standard deviations; bars: 95 % interval of sampling error")

    return draw(0.8 + 0.15 * len(lines) + 0.3 * len(ratios), fill)


def _printable(text: str) -> str:
    """XML has no control characters, not even in the comments that matplotlib writes."""
    return "".join(char if char.isprintable() else " " for char in text)


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
        below.set_xticks(range(len(types)), [each.name.replace(" ", "\n") for each in types])
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
    axes.set_ylabel("Ratio; bars: chance")
