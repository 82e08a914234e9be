"""The target before, between and after: preflight, what is there already, and ``main`` at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from publish.card.metadata import front_matter
from publish.errors import HubError, StorageError
from publish.hub import checkpoints, manifest, status
from publish.hub.checkpoints import CheckpointRecord, Checkpoints
from publish.hub.ledger import Ledger
from publish.hub.manifest import Manifest
from publish.hub.repository import (
    Base,
    check_may_write,
    check_name,
    ensure_repo,
    find_base,
    probe_write,
    validate_card,
    whoami,
)
from publish.hub.status import Expected, StepStatus
from publish.hub.transaction import Committed, publish_branch
from publish.run.cardfacts import README, run_facts, text_of
from publish.run.job import Job
from publish.run.step import ProvenStep
from publish.run.suite import listing, suite_card
from publish.run.workplace import default_folder
from publish.source.files import fingerprint
from publish.wire.client import Client
from publish.wire.download import fetch_text_if_there
from publish.wire.failures import Refused
from publish.wire.repo import list_branches

_READERS = 8
_SPARE = 64 << 20


@dataclass(frozen=True)
class Target:
    """The repo that is released to, ready to be written to."""

    client: Client
    base: Base
    branches: Mapping[str, str]


def preflight(job: Job, client: Client, work: Path, workers: int, *, private: bool) -> Target:
    """All that can go wrong before a weight is read: name, token, right to write, card, disk. Creates the repo.

    Raises:
        HubError: the Hub refuses, or cannot be reached. StorageError: the disk is too small or not writable.
    """
    target = job.release.target
    check_name(target)
    check_disk(job, work, workers)
    identity = whoami(client)
    check_may_write(identity, target)
    card = front_matter(text_of(job.release), target)
    validate_card(client, card, job.release.where)
    created = ensure_repo(client, target, private=private)
    if not created:
        probe_write(client, target)
    return Target(client, find_base(client, target), list_branches(client, target))


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
    return job.plan.weight_bytes * (2 * workers + 1) + _SPARE


def source_commit(job: Job, step: int) -> str | None:
    """What pins a step's source: its commit on a Hub, a fingerprint of its files' indices in a folder."""
    source = job.run.steps[step]
    if source.commit is not None:
        return source.commit
    files = job.run.open(source)
    try:
        return fingerprint(files)
    finally:
        files.close()


def expected(job: Job, steps: Sequence[int]) -> list[Expected]:
    """What each step's branch should have been made from. A run's steps share a plan, so the job's is compared."""
    return [Expected(step, f"step{step}", source_commit(job, step), job.plan.digest) for step in steps]


def states(job: Job, target: Target, ledger: Ledger | None, steps: Sequence[int]) -> dict[int, StepStatus]:
    """Each step: published, stale, missing or foreign."""
    found = status.look(
        target.client,
        job.release.target,
        expected(job, steps),
        ledger=ledger,
        branches=target.branches,
        base=target.base,
    )
    return {each.step: each for each in found}


def published_manifests(client: Client, repo: str, tips: Mapping[int, str]) -> dict[int, Manifest]:
    """The manifests at these commits, by step."""

    def read(commit: str) -> Manifest:
        content = fetch_text_if_there(client, repo, commit, manifest.NAME)
        if content is None:
            raise HubError(f"there is no {manifest.NAME}", f"{repo}@{commit}", "publish the step again")
        return Manifest.from_bytes(content, f"{repo}@{commit}/{manifest.NAME}")

    if not tips:
        return {}
    with ThreadPoolExecutor(min(_READERS, len(tips))) as pool:
        return dict(zip(tips, pool.map(read, tips.values()), strict=True))


def records_on_main(target: Target, repo: str) -> dict[int, CheckpointRecord]:
    """What ``checkpoints.json`` on ``main`` lists, where it is still true of the branches."""
    content = fetch_text_if_there(target.client, repo, target.branches["main"], checkpoints.NAME)
    if content is None:
        return {}
    listed = Checkpoints.from_bytes(content, f"{repo} {checkpoints.NAME}")
    return {each.step: each for each in listed.checkpoints if target.branches.get(each.branch) == each.commit}


def push_main(
    job: Job, target: Target, final: ProvenStep, commits: Mapping[int, str], manifests: Mapping[int, Manifest]
) -> Committed | None:
    """``main``: the final step's files with the suite's card and ``checkpoints.json``; None when it held them.

    Raises:
        HubError: the Hub refuses. StorageError: a local file is gone.
    """
    run, steps = run_facts(job), {step: manifests[step] for step in job.steps if step in commits}
    files = [file for file in final.files if file.path != README]
    records = [CheckpointRecord.of(manifest, commits[step]) for step, manifest in steps.items()]
    card = suite_card(job.release, run, steps, hub=job.hub, templates=job.templates)
    files += [card, listing(job.release.target, run, records)]
    outcome = publish_branch(
        target.client,
        target.base,
        "main",
        files,
        f"{job.release.card.title}: {len(steps)} checkpoints, step {final.step} on main",
        tip=target.branches["main"],
    )
    return outcome if isinstance(outcome, Committed) else None


def look_at(job: Job, work_dir: Path | None) -> tuple[StepStatus, ...]:
    """The state of the job's chosen steps on the environment's Hub; a repo that is not there has none of them.

    Raises:
        HubError: no access, no connection.
    """
    client = Client()
    repo = job.release.target
    try:
        branches = list_branches(client, repo)
    except Refused as error:
        if error.status != 404:
            raise
        return tuple(StepStatus(step, f"step{step}", "missing", "there is no such repo") for step in job.chosen)
    target = Target(client, find_base(client, repo), branches)
    folder = work_dir or default_folder(client.endpoint.url, repo)
    return tuple(states(job, target, Ledger(folder), job.chosen).values())
