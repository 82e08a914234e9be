"""An installed wheel renders cards: the templates and the samples are in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_wheel_renders_cards_without_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith("samples/pythia-tiny-seed1234.tar.xz") for name in archive.namelist())
        archive.extractall(tmp_path / "installed")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "import publish.cards.render as render\n"
        f"assert render.__file__.startswith({str(tmp_path)!r}), render.__file__\n"
        f"assert str(render.templates_folder()).startswith({str(tmp_path)!r})\n"
        "from publish.cli import main; main()"
    )
    work = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, "demo", "--work-dir", str(work)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "published      154 steps" in done.stdout
