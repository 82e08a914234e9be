"""Colours of a plot in both schemes, and the settings that make matplotlib write the same bytes anywhere.

Every colour has one role; the SVG is drawn in the light ones, and a style sheet in it puts the dark ones in their
place where the page is dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
