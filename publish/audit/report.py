"""An audit's report as JSON, and as Markdown for an issue tracker. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from publish.cards.text import code, plain
from publish.records.findings import AuditedRepo, AuditReport, Finding
from publish.text import some

MAX_EVIDENCE = 200  # lines for one finding in Markdown; JSON has all of them
MAX_STEPS = 8  # listed for one finding in a table

MEANINGS: Mapping[str, str] = {
    "duplicate-weights": "These revisions load the same model, so every result computed on them is of one checkpoint.",
    "mixed-shards": "The model loads without an error, but its shards come from different checkpoints.",
    "main-not-final": "Loading the repo without a revision does not give the last checkpoint.",
    "missing-step": "The revision cannot be loaded, and studies across training have a gap there.",
    "unexpected-branch": "Scripts that iterate over the branches take it for a checkpoint of the schedule.",
    "no-safetensors": "The weights can only be unpickled, which can run code and which recent transformers refuses.",
    "size-mismatch": "The weights are incomplete: loading fails, or initializes the missing tensors at random.",
    "config-mismatch": "The config describes another network than the weights: loading fails, or the model computes "
    "something else.",
    "inherited-files": "The branch has files of another checkpoint; transformers may even load a stale weight file.",
    "card-metadata": "The Hub cannot classify the model: no license, not found by search, and a warning on its page.",
    "card-snippet": "The snippet loads another model than the page describes.",
    "card-stale": "The card does not describe what is in the repo.",
    "readme-in-lfs": "The Hub shows no card, because it does not render a README that is stored in LFS.",
    "not-as-recorded": "The branch was changed after its release, or is not what its name says; what was verified then "
    "does not hold any more.",
}


def names_used(audited: AuditedRepo) -> str:
    """Which conventions the names follow: ``step1000 (153), step-1000 (1)``."""
    return some((f"{example} ({count:,})" for example, count in audited.names.items()), MAX_STEPS)


def report_to_json(report: AuditReport) -> dict[str, Any]:
    """The document that ``publish audit --json`` prints; its keys are in ``docs/cli.md``."""
    return {
        "repo": report.repo,
        "branches": report.branches,
        "requests": report.requests,
        "bytes_downloaded": report.bytes_downloaded,
        "weight_bytes": report.weight_bytes,
        "seconds": round(report.seconds, 2),
        "findings": [_finding_to_json(finding) for finding in report.findings],
        "repos": [asdict(audited) for audited in report.repos],
        "ok": report.ok,
    }


def _finding_to_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "branches": list(finding.branches),
        "steps": list(finding.steps),
        "detail": printable(finding.detail),
        "meaning": MEANINGS[finding.kind],
        "repo": finding.repo,
        "evidence": [
            {key: value for key, value in asdict(item).items() if value not in ("", None)} for item in finding.evidence
        ],
    }


def printable(text: str) -> str:
    """``text`` without control characters: names and paths are a server's, and a terminal would obey them."""
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cf") else char for char in text)


def markdown(report: AuditReport) -> str:
    """A report for an issue tracker. The same findings give the same text."""
    return "\n".join(_markdown_lines(report)) + "\n"


def _markdown_lines(report: AuditReport) -> Iterator[str]:
    yield f"# Audit of {plain(report.repo)}"
    yield ""
    count = len(report.findings)
    verdict = {0: "Nothing was found.", 1: "1 finding."}.get(count, f"{count} findings.")
    read = f"{report.weight_bytes:,} bytes of weights were read" if report.weight_bytes else "no weights were read"
    yield f"{verdict} Refs, digests, small files and headers of {report.branches} branches were examined; {read}."
    yield ""
    for audited in report.repos:
        yield f"- {code(audited.repo)}: names like {plain(names_used(audited))}; schedule {plain(audited.schedule)}"
        yield from (f"- {plain(note)}" for note in audited.notes)
    if report.findings:
        yield from ("", "| Kind | Steps | What |", "|---|---|---|")
        for finding in report.findings:
            yield f"| {finding.kind} | {some(finding.steps, MAX_STEPS)} | {plain(finding.detail)} |"
    for number, finding in enumerate(report.findings, 1):
        yield from _markdown_section(number, finding)


def _markdown_section(number: int, finding: Finding) -> Iterator[str]:
    yield from ("", f"## {number}. {finding.kind}", "", f"{plain(finding.detail)}.", "", MEANINGS[finding.kind])
    if not finding.evidence:
        return
    yield from ("", "<details>", f"<summary>Evidence ({len(finding.evidence)})</summary>", "")
    yield from ("| Branch | Commit | File | Bytes | Digest | |", "|---|---|---|---:|---|---|")
    for item in finding.evidence[:MAX_EVIDENCE]:
        cells: list[str] = [
            code(f"{item.repo}@{item.branch}" if item.repo else item.branch),
            item.commit and code(item.commit[:12]),
            item.path and code(item.path),
            "" if item.size is None else f"{item.size:,}",
            item.sha256 and code(item.sha256[:16]),
            plain(item.note),
        ]
        yield f"| {' | '.join(cells)} |"
    if len(finding.evidence) > MAX_EVIDENCE:
        yield from ("", f"and {len(finding.evidence) - MAX_EVIDENCE} more")
    yield from ("", "</details>")
