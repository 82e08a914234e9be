"""What it takes to make the steps of one release, wherever that happens."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from publish.hub.client import Client
from publish.release.job import Job
from publish.release.progress import Progress
from publish.release.state import Expected
from publish.release.work_dir import Workplace
from publish.sources.runs import CheckpointRef


@dataclass(frozen=True)
class Making:
    """The job, and what its steps share while they are made.

    ``tokenizer`` is the fingerprint of the job's, ``workers`` how many steps are in flight, and ``ahead``
    how many more may wait for a model. Once ``hopeless`` is set,
    no further step is begun: what one was refused, all would be.
    """

    job: Job
    expected: Mapping[int, Expected]
    tokenizer: str | None
    client: Client
    place: Workplace
    workers: int
    ahead: int
    logits: str
    progress: Progress
    stop: threading.Event
    hopeless: threading.Event = field(default_factory=threading.Event)

    def source(self, step: int) -> CheckpointRef:
        """The step's checkpoint, pinned to what it was when the release began."""
        return replace(self.job.run.steps[step], commit=self.expected[step].source_commit)
