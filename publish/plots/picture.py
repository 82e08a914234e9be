"""A figure to the picture format that a file name asks for; the same figures give the same bytes in each."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from publish.errors import ReleaseError
from publish.plots.svg import draw, figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
