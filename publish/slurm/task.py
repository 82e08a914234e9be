"""One task of the array: a step made and proven, its large files sent ahead, its result left for the driver."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from publish.errors import HubError, PublishError
from publish.hub.client import Client
from publish.hub.transaction import preupload_lfs
from publish.release.step import ProvenStep, make_step
from publish.slurm.folder import Attempt, ErrorRecord, JobDescription, Result, SharedFolder


def run_task(root: Path, attempt: Attempt) -> int:
    """Do the task; its exit code. Anything but a PublishError is a bug: it ends the task without a result.

    Raises:
        PublishError: the shared folder cannot be used.
    """
    folder, host = SharedFolder(root), socket.gethostname()
    batch, description = folder.batch(attempt.batch), folder.description()
    step = batch.steps[str(attempt.index)]
    if not folder.take_place(attempt, batch.places):
        folder.leave(attempt, Result(step, "no-place", host))
        return 0
    try:
        client = Client()
        proven = _proven(folder, description, attempt, step, client)
        if description.ahead:
            _send(client, description.target, proven)
        folder.leave(attempt, Result.of(proven, host))
    except PublishError as error:
        sys.stderr.write(f"Error: {error}\n")
        folder.leave(attempt, Result(step, "failed", host, error=ErrorRecord.of(error)))
        return error.exit_code
    return 0


def _proven(
    folder: SharedFolder, description: JobDescription, attempt: Attempt, step: int, client: Client
) -> ProvenStep:
    job = description.open(folder.root, client)
    return make_step(
        job,
        description.source_of(job, step),
        folder.task(attempt),
        logits=description.logits,
        tokenizer=description.tokenizer,
        stop=threading.Event(),
    )


def _send(client: Client, target: str, proven: ProvenStep) -> None:
    """Spare the driver the bytes. Where this node cannot reach the Hub, the driver sends them itself."""
    try:
        preupload_lfs(client, target, proven.files)
    except HubError as error:
        sys.stderr.write(f"not uploaded ahead, which is left to the driver: {error}\n")
