"""What imports what, which names and citations must not come back, and how large the package may grow."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "publish"
FILES = sorted(PACKAGE.rglob("*.py"))
# outside library -> the rooms and modules that import it
DOORS = {
    "click": {"cli"},
    "hf_xet": {"rehearsal"},
    "httptools": {"rehearsal"},
    "httpx2": {"hub"},
    "huggingface_hub": {"hub", "cards/metadata", "cli/demo"},  # values of a card's front matter; a step loaded back
    "jinja2": {"cards"},
    "markdown_it": {"rehearsal", "cards/text"},
    "markupsafe": {"cards"},
    "matplotlib": {"plots"},
    "numpy": {"formats", "neox", "hf", "convert", "verify", "explain", "compare", "lineage", "audit/sampling"},
    "pygit2": {"rehearsal"},
    "rich": {"release/progress"},
    "starlette": {"rehearsal"},
    "tokenizers": {"convert/tokenizer"},
    "torch": {"verify", "explain"},
    "transformers": {"verify", "cli/demo"},
    "uvicorn": {"rehearsal"},
    "xxhash": {"convert", "verify"},
    "yaml": {"release_file", "neox", "cards", "rehearsal"},
}
# names replaced by the field's terms: rooms (* is all) -> modules, classes, and functions, without leading underscores
REPLACED = {
    "*": """
        line.py making.py mending.py standing.py ending.py target.py where.py workplace.py workers.py registry.py
        stopping.py given.py show.py nodes.py sealed.py collecting.py cardtext.py wire waits.py counts.py kept.py
        commitreads.py apart.py lent.py behind.py written.py inert.py look.py ahead.py across.py
        Line BegunStep ProvenStep Making Mending Standing Ending Workplace Wishes Wanted CardText Lane Trouble Patience
        Piece CheckpointSource Sources RunSource Apart LentFiles Wish Asked HollowModel Filling Skeleton HashBehind
        Part Placement Seen Remarks Side Account Course Subject Place Walked Examined Made Pace Call
        stand hub_of sane_workers of_a_release on_an_engine seldom_collected told_wait untold note_commit recalled want
        fulfil borrowed of_weights
    """,
    "hub": "look forget",
    "sources": "grown forget",
    "neox formats": "Refusal era",
    "records": "again",
    "verify": "here share",
    "compare explain": "chance origin origins merit",
    "compare lineage": "between beyond",
    "audit": "odd told",
    "release cli": "adopt look",
    "slurm": "flying last_words fate place",
    "rehearsal": "someone answer",
}
ABSENT = re.compile(r"(?<![\w-])facts/|\bCLI\.md")  # notes outside this repository


class Import(NamedTuple):
    name: str  # of the module, or of what is taken from it
    runs: bool  # not only while types are checked


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def name_of(path: Path) -> str:
    """``release/runner`` of ``publish/release/runner.py``, and ``release`` of its ``__init__.py``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("__init__").rstrip("/")


def levels(listing: str) -> dict[str, int]:
    """Room -> how far up it is, by the listing that CONTRIBUTING.md opens with."""
    lines = listing.split("\npublish/\n")[1].split("\n  samples/")[0].splitlines()
    rows = [re.split(r"\s{2,}", line.strip())[0] for line in lines]
    rows = [name for row in rows for name in row.split(", ")]
    found = {room: -down for down, row in enumerate(rows) for room in row.split()}
    return {room.removesuffix("/").removesuffix(".py"): level for room, level in found.items()}


def room_of(name: str) -> str:
    return name.split("/")[0]


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions included."""
    typing = {
        id(inner)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) not in typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: an import is written with its whole path"
            yield from (Import(f"{node.module}.{alias.name}", id(node) not in typing) for alias in node.names)


def imported_modules(path: Path, *, typing: bool) -> set[str]:
    """Names, as ``name_of`` gives them, of the modules of ours that a file imports."""
    modules = set()
    for name, runs in imports(path):
        first, *parts = name.split(".")
        if first == "publish" and (runs or typing):
            found = "/".join(parts)
            modules.add(found if found in MODULES else "/".join(parts[:-1]))
    return modules - {""}  # publish itself has its version


LEVELS = levels((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
MODULES = {name_of(path): path for path in FILES}
each_module = pytest.mark.parametrize("name", MODULES)


@each_module
def test_imports_go_down(name: str) -> None:
    mine = room_of(name)
    assert mine == "" or mine in LEVELS, f"{mine} is not listed in CONTRIBUTING.md"
    for other in imported_modules(MODULES[name], typing=True):
        if room_of(other) != mine:
            assert LEVELS[room_of(other)] < LEVELS[mine], f"{name} imports {other}"
            assert room_of(other) != "rehearsal" or mine == "cli", f"{name} imports the rehearsal Hub, an extra"


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_import_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert cycle({name: imported_modules(path, typing=False) for name, path in MODULES.items()}) == []


@each_module
def test_outside_libraries_are_imported_where_listed(name: str) -> None:
    for imported, _ in imports(MODULES[name]):
        library = imported.split(".")[0]
        if library != "publish" and library not in sys.stdlib_module_names:
            assert DOORS.get(library, set()) & {name, room_of(name)}, f"{name} imports {library}"


def names(path: Path) -> set[str]:
    """The folders, the file, the classes and the functions of a module, without leading underscores."""
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in ast.walk(tree(path)) if isinstance(node, defined)}
    return {name.lstrip("_") for name in (*path.relative_to(PACKAGE).parts, *found)}


@pytest.mark.parametrize("where", REPLACED)
def test_replaced_names_do_not_come_back(where: str) -> None:
    old, rooms = set(REPLACED[where].split()), where.split()
    inside = {name: path for name, path in MODULES.items() if rooms == ["*"] or room_of(name) in rooms}
    found = [f"{word} in {name}" for name, path in inside.items() for word in sorted(names(path) & old)]
    assert not found, "\n".join(found)


def texts() -> Iterator[Path]:
    """What people read in this repository: code, scripts, pages, templates."""
    for folder in ("publish", "tests", "scripts", "docs", "templates", ".ci", ".github"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in ("", ".py", ".md", ".yml", ".yaml", ".j2", ".txt"):
                yield path
    yield from sorted(ROOT.glob("*.md"))


def test_no_file_cites_what_is_not_in_this_repository() -> None:
    assert ABSENT.search("see facts/hub.md")
    assert not ABSENT.search("docs/cli.md, artefacts/x and publish/cards/facts.py")
    citing = [path for path in texts() if path != Path(__file__) and ABSENT.search(path.read_text("utf-8"))]
    assert not citing, "\n".join(map(str, citing))


@pytest.fixture(scope="module")
def counted() -> dict[str, Counter[str]]:
    """What scripts/count.py counts, by room, and the sums that it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        from count import count, outside_rehearsal

    rooms = count()
    return {"outside rehearsal": outside_rehearsal(rooms), "all": sum(rooms.values(), Counter())}


@pytest.mark.parametrize(
    ("where", "what", "most"),
    [
        ("outside rehearsal", "modules", 150),
        ("all", "modules", 175),
        ("outside rehearsal", "code", 17_000),
    ],
)
def test_the_package_stays_small(where: str, what: str, most: int, counted: dict[str, Counter[str]]) -> None:
    assert 0 < counted[where][what] <= most


def test_tests_mirror_the_package() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert rooms - folders == set(), "rooms without tests"
    assert folders - rooms == set(), "tests of no room"
