"""What a release takes, and everything that can be checked before it reads a weight."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publish.cards import metadata
from publish.cards.lint import METADATA, lint_card, lint_claims
from publish.convert.folder import small_files
from publish.errors import CardError, StorageError
from publish.hub.client import Client
from publish.hub.rate_limits import HOUR, PER_HOUR, seconds_to_commit
from publish.hub.repository import (
    Base,
    check_may_write,
    check_name,
    check_private,
    ensure_repo,
    find_base,
    probe_write,
    validate_card,
    whoami,
)
from publish.release.facts import run_facts
from publish.release.job import Job
from publish.text import count

_SPARE = 64 << 20  # bytes for cards and tokenizers, and for what a file system takes


def preflight(job: Job, client: Client, folder: Path, in_flight: int, *, private: bool) -> Base:
    """Check all that can fail before a weight is read: name, card, disk, token, right to write. Creates the repo.

    ``in_flight`` is how many steps may lie in ``folder`` at once. The result is the commit that branches start from.

    Raises:
        CardError: the release file's words make no valid card, or contradict the config.
        HubError: the Hub refuses, or cannot be reached. StorageError: the disk is too small or not writable.
    """
    target = job.model.repo
    check_name(target)
    card = check_card(job)
    check_disk(job, folder, in_flight)
    check_may_write(whoami(client), target)
    validate_card(client, card, job.release.where)
    if not ensure_repo(client, target, private=private):
        probe_write(client, target)
        if private:
            check_private(client, target)
    return find_base(client, target)


def check_card(job: Job) -> str:
    """The front matter of the release's cards, which the lint finds nothing in; nor in the notes. No request.

    Raises:
        CardError: with all that was found.
    """
    release = job.release
    metadata.check(release.card, release.target)
    card = metadata.front_matter(release.card, release.target)
    findings = [finding for finding in lint_card(card, release.target, ()) if finding.kind == METADATA]
    findings += lint_claims(release.card.notes, run_facts(job).config, datasets=release.card.datasets)
    if findings:
        what = "; ".join(finding.detail for finding in findings)
        raise CardError(f"the card would be wrong: {what}", release.where, "correct card: in the release file")
    return card


def check_disk(job: Job, folder: Path, in_flight: int) -> None:
    """Refuse a disk without room for the steps in flight.

    Raises:
        StorageError: with both numbers.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", folder, "name another --work-dir") from error
    needed = disk_needed(job, in_flight)
    if free < needed:
        raise StorageError(
            f"{needed:,} bytes are needed for {count(in_flight, 'step')} in flight and {free:,} are free",
            folder,
            "free some space, name another --work-dir, or lower --workers",
        )


def disk_needed(job: Job, in_flight: int) -> int:
    """Bytes that the steps in flight take at most: the converted weights, and for a source on a Hub what it fetched."""
    copies = 1 if job.run.steps[job.chosen[0]].commit is None else 2
    return job.plan.weight_bytes * copies * in_flight + _SPARE


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """The figures of ``publish plan``. Bytes are of all steps together."""

    source: str
    target: str
    architecture: str
    steps: tuple[int, ...]
    weight_bytes: int
    upload_bytes: int
    commits: int
    commits_per_hour: int
    hours_at_quota: float
    disk_bytes: int
    tokenizer: str | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``publish plan`` (docs/cli.md)."""
        return {
            "source": self.source,
            "target": self.target,
            "architecture": self.architecture,
            "steps": list(self.steps),
            "weight_bytes": self.weight_bytes,
            "upload_bytes": self.upload_bytes,
            "commits": self.commits,
            "commits_per_hour": self.commits_per_hour,
            "hours_at_quota": self.hours_at_quota,
            "disk_bytes": self.disk_bytes,
            "tokenizer": self.tokenizer,
        }


def plan_release(job: Job, in_flight: int) -> ReleasePlan:
    """The figures, from the first step's index: all steps of a run have its sizes.

    Cards and manifests are small and left out of ``upload_bytes``. ``commits`` is one a step, the repo's first, and
    the one on ``main``; the quota (128 an hour, unless the release says otherwise) lets so many pass at once, and one
    more as each of them turns an hour old.
    """
    chosen = len(job.chosen)
    commits, quota = chosen + 2, job.release.commits_per_hour or PER_HOUR
    small = sum(len(content) for content in small_files(job.plan, job.tokenizer).values())
    return ReleasePlan(
        source=job.release.source,
        target=job.release.target,
        architecture=job.plan.architecture,
        steps=job.chosen,
        weight_bytes=job.plan.weight_bytes * chosen,
        upload_bytes=(job.plan.weight_bytes + small) * chosen,
        commits=commits,
        commits_per_hour=quota,
        hours_at_quota=round(seconds_to_commit(commits - 1, quota) / HOUR, 2),
        disk_bytes=disk_needed(job, in_flight),
        tokenizer=job.tokenizer.where if job.tokenizer else None,
    )
