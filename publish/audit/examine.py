"""The audit: gather each suite, check it, then all of them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from publish.audit.cards import card_digests, card_findings
from publish.audit.collect import Wanted, collect, in_parallel
from publish.audit.configs import config_mismatch
from publish.audit.duplicates import (
    duplicate_weights,
    main_not_final,
    shards_against_index,
    shared_between,
    shared_shards,
)
from publish.audit.inherited import inherited_files
from publish.audit.names import missing_steps, unexpected_branches
from publish.audit.reader import Reader
from publish.audit.recorded import broken_expectations, known_effects, not_as_recorded
from publish.audit.records import Suite
from publish.audit.report import audited
from publish.audit.sampling import Sample, chosen_branches, deep_findings, read_sample
from publish.audit.sizes import header_sizes, index_sizes, no_safetensors, short_pickles
from publish.errors import ScheduleError
from publish.records.findings import AuditReport, Finding

# All checks of one suite, in the order of the report. A check is a pure function; a new one is a line here.


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


def examine(reader: Reader, repos: Sequence[str], wanted: Wanted, deep: Sequence[int] = ()) -> AuditReport:
    """Everything that is wrong with the suites in ``repos``, and with them together. ``deep``: steps to look into.

    Raises:
        HubError: a repo cannot be read, or an answer is not what the protocol says or contradicts another.
        ScheduleError: the schedule or the pattern cannot be used.
    """
    begin = time.monotonic()
    client = reader.client
    before = sum(client.requests.values()), client.bytes_received
    suites = [collect(reader, repo, wanted) for repo in dict.fromkeys(repos)]
    findings = [finding for suite in suites for finding in check(suite)]
    if len(suites) > 1:
        findings.extend(shared_between(suites))
    if deep:
        findings.extend(deep_findings(_samples(reader, suites, deep)))
    return AuditReport(
        repos=tuple(audited(suite, known_effects(suite)) for suite in suites),
        findings=tuple(findings),
        requests=sum(client.requests.values()) - before[0],
        bytes_downloaded=client.bytes_received - before[1],
        weight_bytes=reader.weight_bytes,
        seconds=time.monotonic() - begin,
    )


def _samples(reader: Reader, suites: Sequence[Suite], steps: Sequence[int]) -> list[Sample]:
    pairs = [(suite, branch) for suite in suites for branch in chosen_branches(suite, steps)]
    if not pairs:
        asked = ", ".join(map(str, steps[:8]))
        raise ScheduleError(f"no branch is of step {asked}", "--deep", "name steps that the suite has")
    read = in_parallel(lambda pair: read_sample(reader, *pair), pairs)
    return [sample for sample in read if sample is not None]
