"""Modules, lines of code, functions and classes of publish/, room by room: ``scripts/count.py [FOLDER]``.

A line of code is a line that is not blank, not a comment and not part of a docstring. ``tests/test_architecture.py``
counts with this file and holds the sizes.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "publish"
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)


def docstring_lines(tree: ast.Module) -> set[int]:
    """The numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def lines_of_code(path: Path) -> int:
    """Lines of this file that hold code; of a string over several lines, all of them."""
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(ast.parse(path.read_bytes())))


def room(path: Path, package: Path = PACKAGE) -> str:
    """The package that a module lies in; ``.`` for modules at the top."""
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else "."


def count(package: Path = PACKAGE) -> dict[str, Counter[str]]:
    """Room -> its modules, lines of code, functions and classes. Every ``.py`` file is a module."""
    rooms: dict[str, Counter[str]] = {}
    for path in sorted(package.rglob("*.py")):
        nodes = [type(node) for node in ast.walk(ast.parse(path.read_bytes()))]
        rooms.setdefault(room(path, package), Counter()).update(
            modules=1,
            code=lines_of_code(path),
            functions=sum(kind in FUNCTIONS for kind in nodes),
            classes=nodes.count(ast.ClassDef),
        )
    return rooms


def outside_rehearsal(rooms: dict[str, Counter[str]]) -> Counter[str]:
    """The sum over the rooms that every installation has; the rehearsal Hub is an extra."""
    return sum((found for name, found in rooms.items() if name != "rehearsal"), Counter())


def main() -> None:
    rooms = count(Path(sys.argv[1]).resolve() if sys.argv[1:] else PACKAGE)
    total: Counter[str] = sum(rooms.values(), Counter())
    print(f"{'':20}{'modules':>9}{'code':>9}{'functions':>11}{'classes':>9}")
    for name, found in [*sorted(rooms.items()), ("outside rehearsal", outside_rehearsal(rooms)), ("all", total)]:
        print(f"{name:20}{found['modules']:>9}{found['code']:>9,}{found['functions']:>11,}{found['classes']:>9}")


if __name__ == "__main__":
    main()
