"""An audit's report as JSON, and as Markdown for an issue tracker. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from publish.audit.records import MEANINGS, Suite
from publish.cards.text import code, plain
from publish.records.findings import AuditedRepo, AuditReport, Evidence, Finding

MOST = 200  # lines of evidence for one finding in Markdown; JSON has them all


def audited(suite: Suite, notes: Iterable[str]) -> AuditedRepo:
    """What was audited of one repo."""
    branches = (*suite.steps, *([suite.main] if suite.main else []))
    tips = {branch.name: branch.commit for branch in branches}
    return AuditedRepo(suite.repo, tips, suite.expectation.source, tuple(notes))


def document(report: AuditReport) -> dict[str, Any]:
    """The JSON of the command line."""
    return {
        "repo": report.repo,
        "branches": report.branches,
        "requests": report.requests,
        "bytes_downloaded": report.bytes_downloaded,
        "weight_bytes": report.weight_bytes,
        "seconds": round(report.seconds, 2),
        "findings": [_finding(finding) for finding in report.findings],
        "repos": [asdict(audited) for audited in report.repos],
        "ok": report.ok,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "steps": list(finding.steps),
        "detail": shown(finding.detail),
        "meaning": MEANINGS[finding.kind],
        "repo": finding.repo,
        "evidence": [_evidence(each) for each in finding.evidence],
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    """Without what is not known."""
    return {key: value for key, value in asdict(evidence).items() if value not in ("", None)}


def shown(text: str) -> str:
    """``text`` as a terminal may print it: names and paths are a server's, and control characters are not shown."""
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cf") else char for char in text)


def markdown(report: AuditReport) -> str:
    """A report for an issue tracker: same findings, same text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: AuditReport) -> Iterator[str]:
    yield f"# Audit of {plain(report.repo)}"
    yield ""
    verdict = "Nothing found." if report.ok else f"{len(report.findings)} findings."
    yield f"{verdict} {report.branches} branches were examined by refs, digests, small files and headers; " + (
        f"{report.weight_bytes:,} bytes of weights were read." if report.weight_bytes else "no weights were downloaded."
    )
    yield ""
    for each in report.repos:
        yield f"- {code(each.repo)}: schedule {plain(each.schedule)}"
        yield from (f"- {plain(note)}" for note in each.notes)
    if report.findings:
        yield from ("", "| Kind | Steps | What |", "|---|---|---|")
        yield from (f"| {each.kind} | {ranges(each.steps)} | {plain(each.detail)} |" for each in report.findings)
    for number, finding in enumerate(report.findings, 1):
        yield from _section(number, finding)


def _section(number: int, finding: Finding) -> Iterator[str]:
    yield from ("", f"## {number}. {finding.kind}", "", str(plain(finding.detail)) + ".", "", MEANINGS[finding.kind])
    if not finding.evidence:
        return
    yield from ("", "<details>", f"<summary>Evidence ({len(finding.evidence)})</summary>", "")
    yield from ("| Branch | Commit | File | Bytes | Digest | |", "|---|---|---|---:|---|---|")
    for each in finding.evidence[:MOST]:
        branch = f"{each.repo}@{each.branch}" if each.repo else each.branch
        cells: list[str] = [code(branch), each.commit and code(each.commit[:12]), each.path and code(each.path)]
        cells += [
            "" if each.size is None else f"{each.size:,}",
            each.sha256 and code(each.sha256[:16]),
            plain(each.note),
        ]
        yield f"| {' | '.join(map(str, cells))} |"
    if len(finding.evidence) > MOST:
        yield from ("", f"and {len(finding.evidence) - MOST} more")
    yield from ("", "</details>")


def ranges(steps: tuple[int, ...], most: int = 8) -> str:
    """``0, 1, 1000 ... 143000 (154)``: the first few, the last, and how many."""
    if len(steps) <= most:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[: most - 1]))} ... {steps[-1]} ({len(steps)})"
