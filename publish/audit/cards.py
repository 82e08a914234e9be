"""Checks of the cards: the lint of every card, and the digests that our own cards state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from publish.audit.records import README, Branch, Explained, Suite, shorten
from publish.cards import lint
from publish.records.findings import Evidence, Finding
from publish.schedule import branch_of

# of a card that another tool wrote: it need not show code, and the Hub infers these keys from the model's files
OPTIONAL_RULES = frozenset({"no-snippet"})
INFERRED_KEYS = frozenset({"library_name is missing", "pipeline_tag is missing"})
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# a row of our cards' table of files, and of the suite's table of checkpoints
_FILE_ROW = re.compile(r"^\| `([^`|]+)` \| [\d,]+ \| `([0-9a-f]{16})` \|$", re.MULTILINE)
_STEP_ROW = re.compile(r"^\| \[(step\d+)\]\([^)\s]*\) (?:\| [\d,]+ )?\| `([0-9a-f]{8})` \|", re.MULTILINE)


def card_findings(suite: Suite, explained: Explained) -> Iterator[Finding]:
    """Branches that lack a card where others have one, and what the lint finds in each card.

    One finding for each rule of the lint. A card that another finding explains, such as an inherited one, is skipped.
    """
    without = [branch for branch in suite.steps if README not in branch.files and len(branch.files) > 1]
    if 2 * sum(README in branch.files for branch in suite.steps) < len(suite.steps):
        without = []  # the suite keeps its only card on main
    if suite.main is not None and README not in suite.main.files and len(suite.main.files) > 1:
        without.append(suite.main)
    if without:
        evidence = [branch.evidence(note=f"no {README}") for branch in without]
        yield suite.finding("card-metadata", without, f"{shorten(without)}: there is no {README}", evidence)

    found: dict[tuple[str, str], list[tuple[Branch, lint.Finding]]] = {}
    for branch in suite.branches:
        if README in branch.files and (branch.name, README) not in explained:
            for problem in _lint(suite, branch):
                found.setdefault((problem.kind, problem.rule), []).append((branch, problem))
    for (kind, _), problems in found.items():
        branches = list(dict.fromkeys(branch for branch, _ in problems))
        details = list(dict.fromkeys(problem.detail for _, problem in problems))
        similar = f", and {len(details) - 1} more of this kind" if len(details) > 1 else ""
        evidence = [
            branch.evidence(README, f"line {problem.line}: {problem.detail}" if problem.line else problem.detail)
            for branch, problem in problems
        ]
        yield suite.finding(kind, branches, f"{shorten(branches)}: {details[0]}{similar}", evidence)


def _lint(suite: Suite, branch: Branch) -> Iterator[lint.Finding]:
    expected = suite.expected.steps
    if branch.label and expected is not None and branch.step not in expected:
        return  # reported as an unexpected branch
    present = [step.name for step in suite.steps if expected is None or step.step in expected]
    problems = _lint_with(suite, branch, present)
    if missing := set(expected or ()) - {step.step for step in suite.steps}:
        # a missing step is reported once, and not again by every card that speaks of it
        complete = _lint_with(suite, branch, [*present, *map(branch_of, missing)])
        remaining = {(problem.rule, problem.line) for problem in complete}
        problems = [problem for problem in problems if (problem.rule, problem.line) in remaining]
    for problem in problems:
        if problem.rule == "other-model" and suite.release is None:
            continue  # only the release file says which other models a card may name
        if suite.has_records or not (problem.rule in OPTIONAL_RULES or problem.detail in INFERRED_KEYS):
            yield problem


def _lint_with(suite: Suite, branch: Branch, branches: Iterable[str]) -> list[lint.Finding]:
    """The lint's findings for the card of ``branch`` if the suite's steps were these ``branches``."""
    known = _repos_in(asdict(suite.release)) if suite.release else ()
    in_lfs = [README] if branch.files[README].lfs_sha256 else []
    revision = branch.name if branch.label else None
    return list(lint.lint_card(branch.card, suite.repo, branches, revision, known=tuple(known), lfs=in_lfs))


def _repos_in(value: Any) -> Iterator[str]:
    """Every ``owner/name`` in the values of a release file."""
    if isinstance(value, str):
        yield from _REPO.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _repos_in(item)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _repos_in(item)


def card_digests(suite: Suite, explained: Explained) -> Iterator[Finding]:
    """Cards of ours that state other digests than the files have, unless another finding explains the file.

    One finding for each card.
    """
    if not suite.has_records:
        return
    for branch in suite.steps:
        if (branch.name, README) not in explained:
            stated = [(branch, path, head) for path, head in _FILE_ROW.findall(branch.card)]
            yield from _wrong_digests(suite, branch, stated, explained)
    if suite.main is not None:
        by_name = {branch.name: branch for branch in suite.steps}
        rows = [(by_name[name], head) for name, head in _STEP_ROW.findall(suite.main.card) if name in by_name]
        stated = [(branch, _first_weights(branch), head) for branch, head in rows]
        yield from _wrong_digests(suite, suite.main, stated, explained)


def _first_weights(branch: Branch) -> str:
    return next((path for path in sorted(branch.files) if path.endswith(".safetensors")), "")


def _wrong_digests(
    suite: Suite, card: Branch, stated: Iterable[tuple[Branch, str, str]], explained: Explained
) -> Iterator[Finding]:
    """One finding for all (branch, path, head of the digest) that the card states wrongly."""
    branches: list[Branch] = []
    wrong: list[Evidence] = []
    for branch, path, head in stated:
        entry = branch.files.get(path)
        if entry is None or entry.lfs_sha256 is None or entry.lfs_sha256.startswith(head):
            continue
        if not {(branch.name, path), (branch.name, "")} & explained:
            branches.append(branch)
            wrong.append(branch.evidence(path, f"the card on {card.name} says {head}..."))
    if wrong:
        what = f"the card on {card.name} states another digest than {wrong[0].path} of {wrong[0].branch} has"
        what += f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield suite.finding("card-stale", [*branches, card], what, [*wrong, card.evidence(README)])
