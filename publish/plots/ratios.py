"""The plot of a comparison: the ratio of standard deviations by layer type, with its sampling error."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from publish.plots.records import Ratio
from publish.plots.svg import draw
from publish.plots.theme import INK, SERIES, SOFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
