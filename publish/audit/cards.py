"""The cards of all branches: the lint, one finding for each rule, and what our own cards say of digests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from publish.audit.records import Branch, Suite, evidence_of, named, steps_of
from publish.cards import lint
from publish.records.findings import Finding
from publish.release_file import Release
from publish.schedule import branch_of

README = "README.md"
# of a card that somebody else wrote: it need not show code, and the Hub infers these keys from the model's files
LENIENT = frozenset({"no-snippet"})
INFERRED = frozenset({"library_name is missing", "pipeline_tag is missing"})
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# a row of our cards' table of files, and of the suite's table of checkpoints
_FILE_ROW = re.compile(r"^\| `([^`|]+)` \| ([\d,]+) \| `([0-9a-f]{16})` \|$", re.MULTILINE)
_STEP_ROW = re.compile(r"^\| \[(step\d+)\]\([^)\s]*\) (?:\| [\d,]+ )?\| `([0-9a-f]{8})` \|", re.MULTILINE)


def card_findings(suite: Suite, explained: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    """What the lint says of every card, and the branches that lack one where others have it.

    A card that came with the parent is told as such.
    """
    with_card = [branch for branch in suite.steps if README in branch.files]
    lacking = [branch for branch in suite.steps if README not in branch.files and len(branch.files) > 1]
    if 2 * len(with_card) < len(suite.steps):
        lacking = []  # the suite keeps its one card on main
    if suite.main is not None and README not in suite.main.files and len(suite.main.files) > 1:
        lacking.append(suite.main)
    if lacking:
        evidence = tuple(evidence_of(branch, note="no README.md") for branch in lacking)
        yield Finding("card-metadata", steps_of(lacking), f"{named(lacking)}: there is no card", evidence, suite.repo)
    found: dict[tuple[str, str], list[tuple[Branch, lint.Finding]]] = {}
    for branch in (*with_card, *([suite.main] if suite.main and README in suite.main.files else [])):
        for each in _lint(suite, branch) if (branch.name, README) not in explained else ():
            found.setdefault((each.kind, each.rule), []).append((branch, each))
    for (kind, _), told in found.items():
        yield _grouped(suite, kind, told)


def _grouped(suite: Suite, kind: str, told: list[tuple[Branch, lint.Finding]]) -> Finding:
    branches = list(dict.fromkeys(branch.name for branch, _ in told))
    concerned = [branch for branch in (*suite.steps, *([suite.main] if suite.main else [])) if branch.name in branches]
    details = list(dict.fromkeys(each.detail for _, each in told))
    what = f"{named(concerned)}: {details[0]}"
    what += f", and {len(details) - 1} more of the kind" if len(details) > 1 else ""
    notes = [f"line {each.line}: {each.detail}" if each.line else each.detail for _, each in told]
    evidence = tuple(
        evidence_of(branch, branch.files[README], note) for (branch, _), note in zip(told, notes, strict=True)
    )
    return Finding(kind, steps_of(concerned), what, evidence, suite.repo)


def _lint(suite: Suite, branch: Branch) -> Iterator[lint.Finding]:
    due = suite.expectation.steps
    if branch.label and due is not None and branch.step not in due:
        return  # a branch that should not be there is told as such
    there = [each.name for each in suite.steps if due is None or each.step in due]
    found = _read(suite, branch, there)
    if missing := set(due or ()) - {each.step for each in suite.steps}:
        planned = [*there, *map(branch_of, missing)]  # what is missing is told as such, not by every card
        also = {(each.rule, each.line) for each in _read(suite, branch, planned)}
        found = [each for each in found if (each.rule, each.line) in also]
    for each in found:
        if each.rule == "other-model" and suite.release is None:
            continue  # without the release nothing tells which models it may name
        if suite.ours or not (each.rule in LENIENT or each.detail in INFERRED):
            yield each


def _read(suite: Suite, branch: Branch, names: list[str]) -> list[lint.Finding]:
    """The lint's findings for the card of ``branch`` where the suite's branches are ``names``."""
    text = branch.texts[README].decode("utf-8", errors="replace")
    in_lfs = [README] if branch.files[README].lfs_sha256 else []
    known = _known(suite.release) if suite.release else ()
    revision = branch.name if branch.label else None
    return list(lint.lint_card(text, suite.repo, names, revision, known=known, lfs=in_lfs))


def _known(release: Release) -> tuple[str, ...]:
    """Every repo that the release file names, wherever."""
    return tuple(dict.fromkeys(name for text in _texts(asdict(release)) for name in _REPO.findall(text)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, Iterable) and not is_dataclass(value) and not isinstance(value, bytes):
        for each in value:
            yield from _texts(each)


def card_digests(suite: Suite, explained: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    """Digests in our own cards that are not those of the files there, unless another finding explains the file."""
    if not suite.ours:
        return
    by_name = {branch.name: branch for branch in suite.steps}
    for branch in suite.steps:
        if (branch.name, README) in explained:
            continue  # the whole card is another's
        yield from _rows(suite, branch, [(branch, path, head) for path, _, head in _of(branch, _FILE_ROW)], explained)
    if suite.main is not None:
        rows = [(by_name[name], "", head) for name, head in _of(suite.main, _STEP_ROW) if name in by_name]
        yield from _rows(suite, suite.main, rows, explained)


def _of(branch: Branch, row: re.Pattern[str]) -> list[Any]:
    return row.findall(branch.texts.get(README, b"").decode("utf-8", errors="replace"))


def _rows(
    suite: Suite, card: Branch, rows: list[tuple[Branch, str, str]], explained: frozenset[tuple[str, str]]
) -> Iterator[Finding]:
    """One finding for all rows of one card that are not true."""
    wrong = []
    for branch, path, head in rows:
        entry = branch.files.get(path) if path else _first_weights(branch)
        if entry is None or entry.lfs_sha256 is None or entry.lfs_sha256.startswith(head):
            continue
        if not ({(branch.name, entry.path), (branch.name, "")} & explained):
            wrong.append(evidence_of(branch, entry, f"the card on {card.name} says {head}..."))
    if wrong:
        what = f"the card on {card.name} states other digests than the files have: {wrong[0].path} of {wrong[0].branch}"
        steps = tuple(sorted({by.step for by in suite.steps if by.name in {each.branch for each in wrong}}))
        yield Finding("card-stale", steps, what, (*wrong, evidence_of(card, card.files[README])), suite.repo)


def _first_weights(branch: Branch) -> Any:
    return next((entry for path, entry in sorted(branch.files.items()) if path.endswith(".safetensors")), None)
