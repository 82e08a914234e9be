"""A figure to SVG: drawn once, light or dark as the page that shows it, without a date or a random name in it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publish.errors import CardError, ReleaseError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Colours of a plot in both schemes, and the settings that make matplotlib write the same bytes anywhere.


@dataclass(frozen=True, slots=True)
class Colour:
    """One role: its colour on a light and on a dark page."""

    light: str
    dark: str


PAPER = Colour("#fdfdfc", "#16181d")
INK = Colour("#23262b", "#e4e6ea")
SOFT = Colour("#62666d", "#a2a7b0")
GRID = Colour("#e6e7ea", "#2b2f37")
# told apart by people who see red and green alike, each at 3:1 or more against its paper
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


# A figure to the picture format that a file name asks for; the same figures give the same bytes in each.


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
