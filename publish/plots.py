"""Plots of a run and of a comparison: figures to SVG, light or dark as the page that shows it.

The same figures give the same bytes on any machine with the same matplotlib: no date and no random name is in them.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publish.errors import CardError, ReleaseError
from publish.records.manifest import ComparedLayerType, ComparisonRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Curve:
    """One line over training: ``values`` at ``steps``, which ascend. A value may be None."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values) or list(self.steps) != sorted(set(self.steps)):
            raise CardError("a curve needs one value for each of its ascending steps", self.name, "fix the figures")


@dataclass(frozen=True, slots=True)
class Colour:
    """One role: its colour on a light and on a dark page."""

    light: str
    dark: str


PAPER = Colour("#fdfdfc", "#16181d")
INK = Colour("#23262b", "#e4e6ea")
SOFT = Colour("#62666d", "#a2a7b0")
GRID = Colour("#e6e7ea", "#2b2f37")
# distinguishable with red-green colour blindness; each has a contrast of 3:1 or more with its paper
SERIES = (
    Colour("#2a6fd0", "#5b9bf0"),
    Colour("#c2410c", "#f0854a"),
    Colour("#0f8a6a", "#3fc29c"),
    Colour("#a21caf", "#dd7be6"),
    Colour("#8a6d00", "#d9b43c"),
    Colour("#4b5563", "#b9c0cb"),
    Colour("#b4234a", "#f2728f"),
    Colour("#3b4fb8", "#8fa0ff"),
)
ROLES = (PAPER, INK, SOFT, GRID, *SERIES)

SETTINGS: Mapping[str, Any] = {
    "svg.hashsalt": "publish",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],  # ships with matplotlib
    "font.size": 9.0,
    "text.color": INK.light,
    "text.parse_math": False,  # a name with dollar signs is a name
    "axes.facecolor": PAPER.light,
    "axes.edgecolor": SOFT.light,
    "axes.labelcolor": SOFT.light,
    "axes.titlecolor": INK.light,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlepad": 9.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT.light,
    "ytick.color": SOFT.light,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
    "path.simplify": True,
    "figure.facecolor": PAPER.light,
    "savefig.facecolor": PAPER.light,
}


_NO_METADATA: Mapping[str, Mapping[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
FORMATS = (".svg", *_NO_METADATA)
_DPI = 200


def picture(height: float, fill: Callable[[Figure], None], ending: str) -> bytes:
    """The picture of a figure of ``height`` inches that ``fill`` draws into; ``ending`` is one of `FORMATS`.

    Raises:
        ReleaseError: another one. CardError: matplotlib is not installed.
    """
    if ending == ".svg":
        return draw(height, fill)
    if ending not in FORMATS:
        raise ReleaseError(f"no picture format {ending or 'without an ending'}", "--plot", f"use {', '.join(FORMATS)}")
    out = io.BytesIO()
    with figure_of(height, fill) as figure:
        figure.savefig(out, format=ending[1:], dpi=_DPI, metadata=_NO_METADATA[ending])
    return out.getvalue()


WIDTH = 5.6  # inches: text of 9 points stays readable on a phone
_NO_SVG_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_SCALE = re.compile(r"(scale\([^)]*\))")
_OPENED = re.compile(r"<svg [^>]*>")


def available() -> bool:
    """Whether matplotlib is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def load() -> None:
    """Import what draws, where it is installed: half a second that is better spent before somebody waits for a plot."""
    if available():
        import matplotlib.figure  # noqa: F401  loaded, not used


@contextmanager
def figure_of(height: float, fill: Callable[[Figure], None]) -> Iterator[Figure]:
    """A figure of ``height`` inches that ``fill`` drew into, to be saved inside the block.

    Raises:
        CardError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CardError("matplotlib is not installed", "plots", "pip install 'publish-neox[plots]'") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for a letter of a rare script
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        fill(figure)
        yield figure


def draw(height: float, fill: Callable[[Figure], None]) -> bytes:
    """The SVG of a figure of ``height`` inches that ``fill`` draws into.

    Raises:
        CardError: matplotlib is not installed.
    """
    out = io.StringIO()
    with figure_of(height, fill) as figure:
        figure.savefig(out, format="svg", metadata=_NO_SVG_METADATA)
    return _adapted(out.getvalue()).encode()


def _adapted(svg: str) -> str:
    """Coordinates to a hundredth of a point, and a style sheet that turns the light colours dark."""
    parts = _SCALE.split(svg)  # at odd places the scales of letters, which stay exact
    parts[::2] = [
        _NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), part) for part in parts[::2]
    ]
    short = "".join(parts)
    rules = "".join(
        f'[style*="{name}: {role.light}"]{{{name}:{role.dark}!important}}'
        for role in ROLES
        for name in ("fill", "stroke")
        if f"{name}: {role.light}" in short
    )
    sheet = f"\n <style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return _OPENED.sub(lambda found: found[0] + sheet, short, count=1)


# Plots of a run. Steps are on a log axis that begins at 0.


_NAME_HEIGHT = 12.0  # points from one name at the right edge to the next


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
    _names(axes, curves, _NAME_HEIGHT / (72 * height))


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


# Plots of a comparison.


_TITLE_WIDTH = 46  # characters of a title in one line
SIGMAS = 1.96  # of a normal distribution, 95 % lie within


def ratio_plot(comparison: ComparisonRecord, title: str) -> bytes:
    """Ratios as points with 95 % error bars, one line a layer type, the first on top, as SVG."""
    drawn = [(name, ratio, SIGMAS * error) for name, ratio, error in comparison.ratios]
    lines = textwrap.wrap(_printable(title), _TITLE_WIDTH, max_lines=3, placeholder=" ...")

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title("\n".join(lines))
        places = range(len(drawn))
        axes.axvline(1, color=SOFT.light, linewidth=1)
        axes.errorbar(
            [ratio for _, ratio, _ in drawn],
            places,
            xerr=[error for _, _, error in drawn],
            fmt="o",
            markersize=5,
            color=SERIES[0].light,
            ecolor=SERIES[0].light,
            elinewidth=1.5,
            capsize=3,
        )
        axes.set_yticks(places, [_printable(name) for name, _, _ in drawn], color=INK.light)
        axes.invert_yaxis()
        axes.margins(y=0.12)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        furthest = max(abs(ratio - 1) + error for _, ratio, error in drawn) * 1.15 or 0.01
        axes.set_xlim(1 - furthest, 1 + furthest)
        axes.set_xlabel("Ratio of standard deviations; bars: 95 % interval of sampling error")

    return draw(0.8 + 0.15 * len(lines) + 0.3 * len(drawn), fill)


def _printable(text: str) -> str:
    """XML has no control characters, not even in the comments that matplotlib writes."""
    return "".join(char if char.isprintable() else " " for char in text)


_BAR = 0.38


def comparison_plot(comparison: ComparisonRecord, title: str, sides: tuple[str, str], ending: str) -> bytes:
    """A picture of the format ``ending`` (.svg, .png, .pdf); ``sides`` name the left and the right model.

    Raises:
        ReleaseError: there is no such format. CardError: matplotlib is not installed.
    """
    types = [kind for kind in comparison.layer_types if kind.left_std or kind.right_std]

    def fill(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _deviations(above, types, sides)
        _ratios(below, [(kind.ratio, comparison.margin(kind)) for kind in types])
        below.set_xticks(range(len(types)), [kind.name.replace(" ", "\n") for kind in types])
        figure.suptitle(title, fontsize=10, color=INK.light)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)

    return picture(4.4, fill, ending)


def _deviations(axes: Axes, types: Sequence[ComparedLayerType], sides: tuple[str, str]) -> None:
    for number, side in enumerate(sides):
        heights = [(kind.left_std, kind.right_std)[number] or 0.0 for kind in types]
        places = [at + (number - 0.5) * _BAR for at in range(len(types))]
        axes.bar(places, heights, _BAR, color=SERIES[number].light, label=side)
    for at, kind in enumerate(types):
        if kind.expected_std is not None:
            left, right = at - _BAR - 0.05, at + _BAR + 0.05
            axes.hlines(kind.expected_std, left, right, color=INK.light, linestyle="--", linewidth=1)
    axes.set_ylabel("Standard deviation")


def _ratios(axes: Axes, types: Sequence[tuple[float | None, float | None]]) -> None:
    drawn = [(at, ratio, margin) for at, (ratio, margin) in enumerate(types) if ratio and margin]
    axes.axhline(1, color=SOFT.light, linewidth=1)
    axes.errorbar(
        [at for at, _, _ in drawn],
        [ratio for _, ratio, _ in drawn],
        yerr=[margin for _, _, margin in drawn],
        fmt="o",
        markersize=4,
        color=SERIES[0].light,
        ecolor=INK.light,
        capsize=3,
    )
    axes.set_ylabel("Ratio; bars: margin")
