"""The audit: gather each suite, check it, then all of them together."""

from __future__ import annotations

import time
from collections.abc import Sequence

from publish.audit.across import shared_between
from publish.audit.checks import check
from publish.audit.collect import Wanted, collect, in_parallel
from publish.audit.deep import Sample, chosen_branches, read_sample
from publish.audit.fetch import Reader
from publish.audit.lineage import deep_findings
from publish.audit.recorded import known_effects
from publish.audit.records import Suite
from publish.audit.report import Examined, Report
from publish.errors import ScheduleError


def examine(reader: Reader, repos: Sequence[str], wanted: Wanted, deep: Sequence[int] = ()) -> Report:
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
    return Report(
        examined=tuple(Examined.of(suite, known_effects(suite)) for suite in suites),
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
