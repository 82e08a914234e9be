"""Plots: the same bytes anywhere, light and dark in one file, small, and showing what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from publish.errors import CardError
from publish.plots import PAPER, ROLES, SERIES, Curve, distance_plot, ratio_plot, spread_plot
from publish.records.manifest import ComparedLayerType, ComparisonRecord
from publish.schedule import PYTHIA

NAMES = ("embedding", "QKV", "attention dense", "MLP up", "MLP down", "unembedding")


def curves(start: float = 0.1) -> tuple[Curve, ...]:
    return tuple(
        Curve(name, PYTHIA, tuple(start / (1 + index + step / 1000) for step in PYTHIA))
        for index, name in enumerate(NAMES)
    )


def compared(*ratios: tuple[str, float, float]) -> ComparisonRecord:
    """A comparison with these ratios and errors by layer type, and with one that varies in neither model."""
    types = [ComparedLayerType(name, 1, ratio, 1.0, ratio, error, None) for name, ratio, error in ratios]
    constant = ComparedLayerType("norms", 1, 0.0, 0.0, None, None, None)
    return ComparisonRecord("a/b", "different-init", 1, 0, 0, 1, 0, 0, 0, 4.0, (*types, constant))


def pictures() -> dict[str, bytes]:
    ratios = [(name, 1 + index / 100, 0.01) for index, name in enumerate(NAMES)]
    return {
        "std": spread_plot(curves()),
        "distance": distance_plot(curves(0.3), curves(0.7)),
        "ratios": ratio_plot(compared(*ratios), "A against B"),
    }


PICTURES = pictures()


@pytest.mark.parametrize("name", PICTURES)
def test_a_plot_is_small_clean_svg(name: str) -> None:
    picture = PICTURES[name]
    assert len(picture) < 100_000
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    text = picture.decode()
    assert "<script" not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|matplotlib v|href=\"(?!#)", text)
    used = {found[1] for found in re.finditer(r"(?:fill|stroke): (#[0-9a-f]{6})", text)}
    assert used <= {role.light for role in ROLES}, "a colour without a dark one"
    sheet = text[text.index("<style>") : text.index("</style>")]
    assert "@media (prefers-color-scheme: dark)" in sheet
    assert {colour for colour in used if colour not in sheet} == set()
    assert PAPER.dark in sheet


def test_same_bytes_in_another_process_on_another_day_with_other_threads() -> None:
    program = (
        "import sys, time, datetime; time.time = lambda: 4e9\n"
        "from tests.test_plots import pictures\n"
        "sys.stdout.buffer.write(b''.join(pictures().values()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "OMP_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stdout == b"".join(PICTURES.values())


def test_the_users_own_matplotlib_settings_change_nothing() -> None:
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "axes.prop_cycle": matplotlib.cycler(color=["#ff0000"])}):
        assert spread_plot(curves()) == PICTURES["std"]
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_step_0_is_on_the_axis_and_every_curve_is_drawn() -> None:
    text = PICTURES["std"].decode()
    for colour in SERIES[: len(NAMES)]:
        assert f"stroke: {colour.light}" in text
    axis = [found[1] for found in re.finditer(r'<g id="xtick_(\d+)"', text)]
    assert len(axis) == 7  # 0, 1, 10, ..., 100,000


def test_gaps_and_single_points_are_drawn_without_a_warning() -> None:
    few = (Curve("QKV", (0, 1, 1000), (None, 0.0, 0.5)), Curve("MLP up", (0,), (0.2,)))
    assert distance_plot(few, few).startswith(b"<?xml")


def test_other_figures_make_another_plot() -> None:
    assert spread_plot(curves(0.2)) != PICTURES["std"]


def test_a_ragged_curve_is_an_error() -> None:
    with pytest.raises(CardError, match="one value for each"):
        Curve("QKV", (0, 1), (0.1,))


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CardError) as caught:
        spread_plot(curves())
    assert "publish-neox[plots]" in caught.value.fix


@pytest.mark.parametrize(
    "title",
    [
        "Step 0 of $\\frac{1}$ and _{x}^{y}$",
        "--><script>alert(1)</script><!-- & ]]>",
        "of EleutherAI/" + "x" * 300,
        "模型 " * 40,
        "a\nb\x00\x07",
        "",
    ],
)
def test_a_title_is_text_whatever_it_says(title: str) -> None:
    picture = ratio_plot(compared(("$x$ <b>", 1.0, 0.0)), title)
    root = ElementTree.fromstring(picture)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        "svg", "style", "metadata", "RDF", "Work", "defs", "g", "path", "use", "clipPath", "rect", "title"
    }  # fmt: skip
    assert len(picture) < 150_000
