"""What a release will take, known before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from publish.convert.folder import small_files
from publish.run.job import Job
from publish.run.target import disk_needed
from publish.wire.commit_quota import HOUR, PER_HOUR, seconds_to_commit


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
    hours_at_quota: float
    disk_bytes: int
    tokenizer: str | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``CLI.md``."""
        return {
            "source": self.source,
            "target": self.target,
            "architecture": self.architecture,
            "steps": list(self.steps),
            "weight_bytes": self.weight_bytes,
            "upload_bytes": self.upload_bytes,
            "commits": self.commits,
            "hours_at_quota": self.hours_at_quota,
            "disk_bytes": self.disk_bytes,
            "tokenizer": self.tokenizer,
        }


def plan_release(job: Job, workers: int) -> ReleasePlan:
    """The figures, from the first step's index: all steps of a run have its sizes.

    Cards and manifests are small and left out of ``upload_bytes``. ``commits`` is one a step, the repo's first, and
    the one on ``main``; the quota (128 an hour, unless the release says otherwise) lets so many pass at once, and one
    more as each of them turns an hour old.
    """
    count = len(job.chosen)
    commits = count + 2
    small = sum(len(content) for content in small_files(job.plan, job.tokenizer).values())
    return ReleasePlan(
        source=job.release.source,
        target=job.release.target,
        architecture=job.plan.architecture,
        steps=job.chosen,
        weight_bytes=job.plan.weight_bytes * count,
        upload_bytes=(job.plan.weight_bytes + small) * count,
        commits=commits,
        hours_at_quota=round(seconds_to_commit(commits - 1, job.release.commits_per_hour or PER_HOUR) / HOUR, 2),
        disk_bytes=disk_needed(job, workers),
        tokenizer=job.tokenizer.where if job.tokenizer else None,
    )
