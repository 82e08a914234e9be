"""The package as it is installed: the wheel has the templates and the samples, and every library is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("plots", "rehearsal")  # named as the rooms of publish/ that need them
NOT_DECLARED = {"hf-xet"}  # huggingface_hub requires it on the platforms that have a build


def libraries(folder: Path) -> Iterator[tuple[str, str]]:
    """The libraries that the modules below ``folder`` import, each as (distribution, module)."""
    distributions = packages_distributions()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"publish"}:
                yield canonicalize_name(distributions[top][0]), str(path.relative_to(ROOT))


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_every_library_is_declared_where_it_is_needed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core, extras = declared(project["dependencies"]), project["optional-dependencies"]
    for name, module in libraries(ROOT / "publish"):
        room = Path(module).parts[1].removesuffix(".py")
        allowed = core | declared(extras[room]) if room in EXTRAS else core
        assert name in allowed | NOT_DECLARED, f"{module} imports {name}"
    for extra in EXTRAS:
        assert declared(extras[extra]) - core, f"the extra {extra} is empty"


@pytest.mark.slow
def test_a_wheel_renders_cards_without_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert any(name.endswith("samples/pythia-tiny-seed1234.tar.xz") for name in names)
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        assert set(message_from_string(metadata).get_all("Provides-Extra", ())) == {"all", "dev", *EXTRAS}
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
    assert re.search(r"^published +154 steps$", done.stdout, re.MULTILINE)
    assert "GPTNeoXForCausalLM, 14,784 parameters" in done.stdout
