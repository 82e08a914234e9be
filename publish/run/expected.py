"""What every step of a release must be made of, as far as that is known before a weight is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict

from publish import __version__
from publish.card.render import templates_folder
from publish.convert.folder import small_files
from publish.hub.status import Expected
from publish.run.comparisons import compared_with
from publish.run.job import Job
from publish.source.files import fingerprint

NOT_WORDING = ("source", "schedule", "tokenizer", "where", "base", "commits_per_hour")


def expectations(job: Job, steps: Iterable[int]) -> dict[int, Expected]:
    """Step -> what its branch must be made of; the files of a folder source are looked at, a Hub is not asked.

    Raises:
        SourceError: a checkpoint cannot be read, or a model to compare with is neither a folder nor a repo.
    """
    files, wording = shared_files(job), wording_digest(job)
    return {
        step: Expected(
            step=step,
            branch=f"step{step}",
            source_commit=source_commit(job, step),
            plan=job.plan.digest,
            files=files,
            wording=wording,
            comparisons=compared_with(job.release, step),
        )
        for step in steps
    }


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


def shared_files(job: Job) -> tuple[tuple[str, str], ...]:
    """Path and sha256 of the files that every step has alike; none where the tokenizer was not found."""
    if job.tokenizer is None:
        return ()
    files = small_files(job.plan, job.tokenizer)
    return tuple((name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items()))


def wording_digest(job: Job) -> str:
    """A digest of all that cards are made from besides a step's manifest: words, templates, this version."""
    words = {name: value for name, value in asdict(job.release).items() if name not in NOT_WORDING}
    folders = [templates_folder(), *([job.templates] if job.templates else [])]
    templates = [(path.name, path.read_text("utf-8")) for folder in folders for path in sorted(folder.glob("*.j2"))]
    document = [__version__, words, job.steps, job.hub, templates]
    return hashlib.sha256(json.dumps(document, default=str).encode()).hexdigest()
