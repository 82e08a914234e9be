"""Imports go one way, and each outside library has its doors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "publish"
BASE = ("errors", "text", "dtypes", "schedule", "interrupt", "atomic", "release_file")
ROOMS = (
    "hub",
    "sources",
    "formats",
    "neox",
    "hf",
    "checkpoints",
    "convert",
    "verify",
    "plots",
    "explain",
    "compare",
    "lineage",
    "cards",
    "records",
    "audit",
    "release",
    "slurm",
    "cli",
)
DOORS = {
    "click": {"cli"},
    "huggingface_hub": {"hub", "sources", "cards", "audit", "release", "cli"},
    "jinja2": {"cards"},
    "transformers": {"convert", "verify", "cli"},
    "matplotlib": {"plots"},
    "pygit2": {"rehearsal"},
    "starlette": {"rehearsal"},
    "uvicorn": {"rehearsal"},
    "rich": {"release"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_earlier_ones(path: Path) -> None:
    mine = room(path)
    order = (*BASE, *ROOMS)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "publish" or len(parts) < 2 or mine not in order:
            continue
        other = parts[1]
        if other in order and other != mine:
            allowed = other in BASE or (mine in ROOMS and ROOMS.index(other) < ROOMS.index(mine))
            allowed = allowed or (mine, name) == ("explain", "publish.cards.facts")  # until records/ holds explanations
            bottom = ("publish.records.gates", "publish.records.files", "publish.records.findings")
            allowed = allowed or name in bottom  # until all of records/ is
            assert allowed, f"{mine} imports {name}"
        if other == "rehearsal":
            assert mine in ("run", "cli"), f"{mine} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_outside_libraries_come_in_by_their_doors(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        if library in DOORS:
            assert room(path) in DOORS[library], f"{library} is imported in {room(path)}"
