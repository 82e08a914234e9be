"""The table of a comparison as a picture: standard deviation by layer type, and the ratio with what chance allows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from publish.compare.evidence import TypeComparison
from publish.compare.report import Report
from publish.errors import ReleaseError, StorageError

FORMATS = (".svg", ".png", ".pdf")
_LEFT, _RIGHT, _INK = "#4c78a8", "#f58518", "#444444"
# no time, no random identifiers and no version: the same figures give the same bytes
_METADATA = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
_STYLE = {"svg.hashsalt": "publish", "svg.fonttype": "path", "font.size": 9, "font.family": "DejaVu Sans"}


def draw(report: Report, path: Path) -> None:
    """Write the picture; the format follows from the name.

    Raises:
        ReleaseError: another format, or matplotlib is not installed. StorageError: it cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ReleaseError(f"no picture format {ending or 'without an ending'}", path, f"end in {', '.join(FORMATS)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReleaseError("matplotlib is not installed", "--plot", "pip install publish-neox[plots]") from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        _draw(figure, report)
        try:
            figure.savefig(path, dpi=150, metadata=_METADATA[ending])
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", path, "name another file") from error


def _draw(figure: Any, report: Report) -> None:
    types = [each for each in report.evidence.types if each.left.std > 0 or each.right.std > 0]
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    places = list(range(len(types)))
    for offset, side, colour in ((-0.2, "left", _LEFT), (0.2, "right", _RIGHT)):
        heights = [getattr(each, side).std for each in types]
        where = getattr(report.comparison, side).where
        above.bar([at + offset for at in places], heights, 0.4, color=colour, label=f"{side}: {_shortened(where)}")
    for at, each in enumerate(types):
        if predicted := next((std for std in each.expected if std is not None), None):
            above.hlines(predicted, at - 0.42, at + 0.42, color=_INK, linestyle="--", linewidth=1)
    above.set_ylabel("standard deviation")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    _ratios(below, types, report.evidence.limit)
    below.set_xticks(places, [each.name for each in types])
    above.set_title(report.sentence, fontsize=10)


def _ratios(axes: Any, types: list[TypeComparison], limit: float) -> None:
    drawn = [(at, each) for at, each in enumerate(types) if math.isfinite(each.ratio)]
    axes.axhline(1, color=_INK, linewidth=0.8)
    axes.errorbar(
        [at for at, _ in drawn],
        [each.ratio for _, each in drawn],
        yerr=[limit * each.error for _, each in drawn],
        fmt="o",
        color=_LEFT,
        ecolor=_INK,
        capsize=3,
        markersize=4,
    )
    axes.set_ylabel("ratio, and chance")


def _shortened(text: str, most: int = 48) -> str:
    return text if len(text) <= most else f"...{text[-most + 3 :]}"
