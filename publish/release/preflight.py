"""What a release will take, known before it begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publish.cards import metadata
from publish.cards.lint import METADATA, lint_card, lint_claims
from publish.convert.folder import small_files
from publish.errors import CardError, StorageError
from publish.hub.branch_files import BranchFile
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
from publish.hub.transaction import Outcome, publish_branch
from publish.release.card_facts import README, run_facts
from publish.release.job import Job
from publish.release.state import MAIN, Standing
from publish.release.step import ProvenStep
from publish.verify.hf_model import MEMORY

# The target before anything is written to it, and ``main`` at the end.


_SPARE = 64 << 20  # bytes for cards, ledger, and what a file system takes
_AHEAD = 32 << 20  # bytes of steps that are begun ahead

Begin = Callable[[str, Sequence[BranchFile]], str | None]  # (branch, its files) -> the tip to publish them on


@dataclass(frozen=True)
class Target:
    """The repo that is released to, ready to be written to."""

    client: Client
    base: Base


def preflight(job: Job, client: Client, work: Path, workers: int, *, private: bool) -> Target:
    """All that can go wrong before a weight is read: name, card, disk, token, right to write. Creates the repo.

    Raises:
        CardError: the release file's words make no valid card, or contradict the config.
        HubError: the Hub refuses, or cannot be reached. StorageError: the disk is too small or not writable.
    """
    target = job.release.target
    check_name(target)
    card = check_card(job)
    check_disk(job, work, workers)
    check_may_write(whoami(client), target)
    validate_card(client, card, job.release.where)
    if not ensure_repo(client, target, private=private):
        probe_write(client, target)
        if private:
            check_private(client, target)
    return Target(client, find_base(client, target))


def check_card(job: Job) -> str:
    """The front matter of the release's cards, which the lint finds nothing in; nor in the notes. No request.

    Raises:
        CardError: with all that was found.
    """
    release = job.release
    metadata.check(release.card, release.target)
    card = metadata.front_matter(release.card, release.target)
    findings = [each for each in lint_card(card, release.target, ()) if each.kind == METADATA]
    findings += lint_claims(release.card.notes, run_facts(job).config, datasets=release.card.datasets)
    if findings:
        what = "; ".join(each.detail for each in findings)
        raise CardError(f"the card would be wrong: {what}", release.where, "correct card: in the release file")
    return card


def check_disk(job: Job, work: Path, workers: int) -> None:
    """Room for the steps in flight, the last step that waits for ``main``, and the spool of a remote source.

    Raises:
        StorageError: with both numbers.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(work).free
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", work, "name another --work-dir") from error
    needed = disk_needed(job, workers)
    if free < needed:
        raise StorageError(
            f"{needed:,} bytes are needed for {workers} steps in flight and {free:,} are free",
            work,
            "free some space, name another --work-dir, or lower --workers",
        )


def disk_needed(job: Job, workers: int) -> int:
    """Bytes in the work folder at most."""
    return job.plan.weight_bytes * (2 * workers + 1) + _SPARE + _AHEAD


def steps_ahead(job: Job) -> int:
    """Steps that may be begun and wait, beyond those in flight: none where they are large."""
    small = sum(len(content) for content in small_files(job.plan, job.tokenizer).values())
    return _AHEAD // (2 * job.plan.weight_bytes + small)


def push_main(target: Target, final: ProvenStep, now: Standing, begin: Begin | None = None) -> Outcome:
    """``main``: the final step's files with the suite's card, its plots and ``checkpoints.json``.

    ``begin`` tells what to publish on, in a repair.

    Raises:
        HubError: the Hub refuses. StorageError: a local file is gone.
    """
    files = [*(file for file in final.files if file.path != README), *now.main_files]
    tip = now.branches.get(MAIN)
    return publish_branch(
        target.client,
        target.base,
        MAIN,
        files,
        f"{now.job.release.card.title}: {len(now.records)} checkpoints, step {final.step} on main",
        tip=begin(MAIN, files) if begin else tip,
    )


# How many steps to have in flight, where nobody says: as many as cores, memory and disk allow.


MOST = 8  # more commits on their way at once gain nothing under any quota
_IMPORTS = (150 << 20) + MEMORY  # bytes that the process takes without a step, and the one that computes with models
_STEP = 64 << 20  # chunks, logits, an index: what a step takes beside its largest tensors


def sane_workers(job: Job, work: Path) -> int:
    """Between 1 and :data:`MOST`: one a core, each with memory for two of the largest tensors and room on disk."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - _IMPORTS
    existing = next(folder for folder in (work.absolute(), *work.absolute().parents) if folder.is_dir())
    disk = shutil.disk_usage(existing).free
    fit = memory // (2 * job.plan.largest_tensor + _STEP)
    most = min(MOST, len(os.sched_getaffinity(0)), fit, len(job.chosen))
    while most > 1 and disk_needed(job, most) > disk:
        most -= 1
    return max(1, most)


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
