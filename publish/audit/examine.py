"""The audit: read each suite, run the checks of its format, then compare the suites with each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publish.audit.cards import card_digests, card_findings
from publish.audit.collect import AuditOptions, collect
from publish.audit.configs import config_mismatch
from publish.audit.reader import Reader, in_parallel
from publish.audit.recorded import broken_expectations, inherited_files, not_as_recorded
from publish.audit.records import HF, Explained, Suite, explained_by
from publish.audit.sampling import Sample, branches_to_sample, deep_findings, read_sample
from publish.audit.schedule import missing_steps, unexpected_branches, unplaced_names
from publish.audit.weights import (
    cross_repo,
    duplicate_weights,
    equal_first_steps,
    header_sizes,
    index_sizes,
    main_not_final,
    no_safetensors,
    shards_against_index,
    shared_shards,
    short_pickles,
)
from publish.errors import ScheduleError
from publish.records.findings import AuditedRepo, AuditReport, Finding
from publish.text import some


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one format, in the order of the report. Each is a pure function of the suite.

    Those in ``then`` run after ``first``, and leave out what the findings before them explain: one defect is reported
    once, although records and cards contradict it too.
    """

    first: tuple[Callable[[Suite], Iterator[Finding]], ...]
    then: tuple[Callable[[Suite, Explained], Iterator[Finding]], ...]


CHECKS: Mapping[str, Checks] = {
    HF: Checks(
        first=(
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
        ),
        then=(
            card_findings,
            not_as_recorded,
            card_digests,
        ),
    ),
}


def check(suite: Suite) -> tuple[Finding, ...]:
    """Everything that is wrong with the suite."""
    checks = CHECKS[suite.format]
    findings = [finding for run in checks.first for finding in run(suite)]
    for run_after in checks.then:
        findings.extend(run_after(suite, explained_by(findings)))
    return tuple(findings)


def examine(reader: Reader, repos: Sequence[str], options: AuditOptions) -> AuditReport:
    """Everything that is wrong with the suites in ``repos``, alone and together.

    Raises:
        HubError: a repo cannot be read, or an answer violates the protocol or contradicts another.
        ScheduleError: the schedule or the pattern cannot be used, or no suite has the steps to sample.
    """
    begin = time.monotonic()
    client = reader.client
    requests, received = sum(client.requests.values()), client.bytes_received
    suites = [collect(reader, repo, options) for repo in dict.fromkeys(repos)]
    findings = [finding for suite in suites for finding in check(suite)]
    findings.extend(cross_repo(suites))
    if options.deep:
        findings.extend(deep_findings(_read_samples(reader, suites, options.deep)))
    return AuditReport(
        repos=tuple(_audited(suite) for suite in suites),
        findings=tuple(findings),
        requests=sum(client.requests.values()) - requests,
        bytes_downloaded=client.bytes_received - received,
        weight_bytes=reader.weight_bytes,
        seconds=time.monotonic() - begin,
    )


def _audited(suite: Suite) -> AuditedRepo:
    return AuditedRepo(
        repo=suite.repo,
        format=suite.format,
        axis=suite.names.axis,
        names=suite.names.conventions,
        schedule=suite.expected.source,
        notes=(*unplaced_names(suite), *equal_first_steps(suite)),
        tips={branch.name: branch.commit for branch in suite.branches},
    )


def _read_samples(reader: Reader, suites: Sequence[Suite], steps: Sequence[int]) -> list[Sample]:
    pairs = [(suite, branch) for suite in suites for branch in branches_to_sample(suite, steps)]
    if not pairs:
        raise ScheduleError(f"no branch is of step {some(steps, 8)}", "--deep", "name steps that the suite has")
    samples = in_parallel(lambda pair: read_sample(reader, *pair), pairs)
    return [sample for sample in samples if sample is not None]
