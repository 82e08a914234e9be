"""The job as every task needs it: ``job.json`` in the work folder. It holds no credential."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from publish import __version__
from publish.cardtext import CardText
from publish.convert.tokenizer import NONE
from publish.errors import SlurmError
from publish.hub.records import canonical
from publish.release import ExpectedEqual, ExpectedJump, Override, Release, WantedComparison
from publish.run.job import Job, Wishes, make_job
from publish.run.making import Making
from publish.source.checkpoints import CheckpointSource
from publish.source.sources import Sources
from publish.wire.client import Client
from publish.wire.endpoint import Endpoint

NAME = "job.json"
TOKENIZER = "tokenizer"


@dataclass(frozen=True, slots=True)
class JobDescription:
    """All that makes a step what it is. Two drivers of one description may take over each other's tasks.

    ``planned``: the step whose plan the release has, and ``plan`` that plan's digest. ``commits``: what pins each
    step's source. ``ahead``: tasks upload large files, since the target is on the Hub of their environment.
    """

    version: str
    python: str
    source: str
    base: str
    target: str
    card: CardText
    steps: tuple[int, ...]
    planned: int
    plan: str
    commits: Mapping[str, str | None]
    tokenizer: str | None
    dtype: str | None
    overrides: tuple[Override, ...]
    expect: tuple[ExpectedEqual, ...]
    jumps: tuple[ExpectedJump, ...]
    compare: tuple[WantedComparison, ...]
    where: str
    hub: str
    templates: str | None
    logits: str
    ahead: bool

    @classmethod
    def of(cls, making: Making) -> JobDescription:
        """The description of a release under way."""
        job, release = making.job, making.job.release
        expected = making.expected
        return cls(
            version=__version__,
            python=sys.executable,
            source=release.source,
            base=str(release.base.absolute()),
            target=release.target,
            card=release.card,
            steps=job.steps,
            planned=job.chosen[0],
            plan=job.plan.digest,
            commits={str(step): each.source_commit for step, each in expected.items()},
            tokenizer=making.tokenizer,
            dtype=release.dtype,
            overrides=release.overrides,
            expect=release.expect,
            jumps=release.jumps,
            compare=release.compare,
            where=release.where,
            hub=job.hub,
            templates=str(job.templates.absolute()) if job.templates else None,
            logits=making.logits,
            ahead=making.client.endpoint.url == Endpoint.from_environment().url,
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(self)

    def source_of(self, job: Job, step: int) -> CheckpointSource:
        """The step's checkpoint, pinned to what it was when the release began."""
        return replace(job.run.steps[step], commit=self.commits[str(step)])

    def open(self, folder: Path, client: Client) -> Job:
        """The job again, in a task; the tokenizer's files are in ``folder``.

        Raises:
            SlurmError: it is not the driver's job: another version of the tool, or a source that changed.
            PublishError: as :func:`publish.run.job.make_job` does.
        """
        release = Release(
            source=self.source,
            target=self.target,
            card=self.card,
            schedule=self.steps,
            dtype=self.dtype,
            overrides=self.overrides,
            expect=self.expect,
            jumps=self.jumps,
            compare=self.compare,
            where=self.where,
            base=Path(self.base),
        )
        tokenizer = str(folder / TOKENIZER) if self.tokenizer else NONE
        job = make_job(release, Wishes(str(self.planned), tokenizer), Sources(client))
        if (__version__, job.plan.digest) != (self.version, self.plan):
            what = f"this node plans otherwise than the driver: publish {__version__}, plan {job.plan.digest[:12]}"
            fix = "use one installation on a file system that all nodes share, and run again"
            raise SlurmError(f"{what} for {self.version}, {self.plan[:12]}", job.run.where, fix)
        return replace(job, hub=self.hub, templates=Path(self.templates) if self.templates else None)
