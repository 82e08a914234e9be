"""Imports go one way, and each outside library has its doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "publish"
BASE = ("errors", "schedule", "nodes", "cardtext", "collecting", "sealed", "release", "wire")
STAGES = (
    "source",
    "neox",
    "convert",
    "verify",
    "explain",
    "compare",
    "plots",
    "card",
    "hub",
    "audit",
    "run",
    "slurm",
    "cli",
)
DOORS = {
    "click": {"cli"},
    "huggingface_hub": {"wire", "hub", "source", "card", "audit", "run"},
    "jinja2": {"card"},
    "transformers": {"convert", "verify", "run"},
    "matplotlib": {"plots"},
    "pygit2": {"rehearsal"},
    "starlette": {"rehearsal"},
    "uvicorn": {"rehearsal"},
    "rich": {"run"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_stage_imports_only_earlier_ones(path: Path) -> None:
    mine = stage(path)
    order = (*BASE, *STAGES)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "publish" or len(parts) < 2 or mine not in order:
            continue
        other = parts[1]
        if other in order and other != mine:
            allowed = other in BASE or (mine in STAGES and STAGES.index(other) < STAGES.index(mine))
            assert allowed, f"{mine} imports {name}"
        if other == "rehearsal":
            assert mine in ("run", "cli"), f"{mine} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_outside_libraries_come_in_by_their_doors(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        if library in DOORS:
            assert stage(path) in DOORS[library], f"{library} is imported in {stage(path)}"
