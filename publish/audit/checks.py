"""All checks of one suite, in the order of the report. A check is a pure function; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from publish.audit.cards import card_digests, card_findings
from publish.audit.configs import config_mismatch
from publish.audit.duplicates import duplicate_weights, main_not_final
from publish.audit.inherited import inherited_files
from publish.audit.recorded import broken_expectations, not_as_recorded
from publish.audit.records import Finding, Suite
from publish.audit.shards import shards_against_index, shared_shards
from publish.audit.sizes import header_sizes, index_sizes, no_safetensors, short_pickles
from publish.audit.steps import missing_steps, unexpected_branches

CHECKS: tuple[Callable[[Suite], Iterator[Finding]], ...] = (
    duplicate_weights,
    shared_shards,
    shards_against_index,
    main_not_final,
    missing_steps,
    unexpected_branches,
    no_safetensors,
    header_sizes,
    index_sizes,
    short_pickles,
    config_mismatch,
    inherited_files,
    broken_expectations,
)
# these leave out what the findings before them explain: one defect, one finding
AFTERWARDS: tuple[Callable[[Suite, frozenset[tuple[str, str]]], Iterator[Finding]], ...] = (
    card_findings,
    not_as_recorded,
    card_digests,
)


def check(suite: Suite) -> tuple[Finding, ...]:
    """Everything that is wrong with the suite."""
    findings = [finding for each in CHECKS for finding in each(suite)]
    for each in AFTERWARDS:
        explained = frozenset(touched for finding in findings for touched in finding.touches)
        findings.extend(each(suite, explained))
    return tuple(findings)
