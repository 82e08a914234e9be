"""A rehearsal Hub, and an audit of the repos on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from publish.audit.collect import AuditOptions
from publish.audit.examine import examine
from publish.audit.reader import Cache, Reader
from publish.hub.client import Client
from publish.hub.endpoint import Endpoint, RetryPolicy
from publish.records.findings import AuditReport
from publish.rehearsal.server import RehearsalHub

MANY = 10**6
Audit = Callable[..., AuditReport]


def kinds(report: AuditReport) -> list[tuple[str, tuple[int, ...]]]:
    """(kind, steps) of every finding, sorted."""
    return sorted((finding.kind, finding.steps) for finding in report.findings)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RehearsalHub]:
    with RehearsalHub(tmp_path / "hub", api_quota=MANY, resolver_quota=MANY) as running:
        yield running


@pytest.fixture
def audit(hub: RehearsalHub, tmp_path: Path) -> Audit:
    """Audit repos of the Hub, with a cache that lasts as long as the test."""

    def run(*repos: str, **options: object) -> AuditReport:
        client = Client(Endpoint(hub.url), retry_policy=RetryPolicy(tries=2, base=0.01), quota_dir=tmp_path / "quota")
        reader = Reader(client, Cache(tmp_path / "cache"))
        return examine(reader, repos, AuditOptions(**options))  # type: ignore[arg-type]

    return run
