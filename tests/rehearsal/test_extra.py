"""Without the extra ``rehearsal`` the package works, and what needs the rehearsal Hub says what to install."""

from __future__ import annotations

import subprocess
import tomllib
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.rehearsal.conftest import PUBLISH

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("httptools", "pygit2", "starlette", "uvicorn")


def required(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The installed distributions that the requirements ask for, and those that these require in turn."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found[name] = distribution(name)
        for text in found[name].requires or ():
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                waiting.append(inner)
    return found


@pytest.fixture(scope="module")
def core_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has this package and its ``dependencies``, as links to what is installed here, and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "publish").symlink_to(ROOT / "publish")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for installed in required(project["dependencies"]).values():
        for name in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(installed.locate_file(name)))
    return str(folder / "bin" / "python")


def run(python: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [python, "-I", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_command_has_help_without_the_extra(core_python: str) -> None:
    code = (
        "import importlib.util\n"
        f"assert not [name for name in {LIBRARIES} if importlib.util.find_spec(name)]\n"
        "from click.testing import CliRunner\n"
        "from publish.cli.group import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    done = CliRunner().invoke(main, [name, '--help'])\n"
        "    assert done.exit_code == 0, (name, done.exception)\n"
    )
    done = run(core_python, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["hub --root FOLDER", "demo --work-dir FOLDER", "all-steps SAMPLES a/b --rehearse"])
def test_a_command_that_needs_the_extra_names_it(core_python: str, command: str, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unused"
    words = {"FOLDER": folder, "SAMPLES": samples}
    done = run(core_python, PUBLISH[-1], *(words.get(word, word) for word in command.split()))
    assert (done.returncode, done.stdout) == (2, "")
    error, where, fix = done.stderr.splitlines()
    assert error.startswith("Error: the rehearsal Hub needs ")
    assert error.endswith(", which is not installed")
    assert "at: " in where
    assert fix.strip() == "fix: pip install 'publish-neox[rehearsal]'"
    assert not folder.exists()
