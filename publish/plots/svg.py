"""A figure to SVG: drawn once, light or dark as the page that shows it, without a date or a random name in it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from publish.errors import CardError
from publish.plots.theme import ROLES, SETTINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches: text of 9 points stays readable on a phone
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
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
        import matplotlib.backends.backend_svg
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
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
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


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
