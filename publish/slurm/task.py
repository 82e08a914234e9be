"""One task of the array: makes and verifies a step, uploads its large files, leaves its result for the driver."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from publish.errors import HubError, PublishError
from publish.hub.client import Client
from publish.hub.transaction import preupload_lfs
from publish.interrupt import Stop
from publish.release.outcome import Failure
from publish.release.step import VerifiedBranch, make_step
from publish.schedule import branch_of
from publish.slurm.folder import Attempt, Result, SharedFolder


def run_task(root: Path, attempt: Attempt) -> int:
    """Run the task and leave its result; its exit code. A bug ends the task without a result.

    Raises:
        PublishError: the shared folder cannot be used, or the release cannot be opened on this node.
    """
    folder, host = SharedFolder(root), socket.gethostname()
    batch, job_file = folder.batch(attempt.batch), folder.job_file()
    step = batch.steps[str(attempt.index)]
    if not folder.take_slot(attempt, batch.slots):
        folder.leave(attempt, Result(step, host))
        return 0
    client = Client()
    try:
        job = job_file.open(folder.root, client)
        (branch,) = make_step(job, job_file.ref(job, step), folder.task(attempt) / branch_of(step), Stop())
        if isinstance(branch, VerifiedBranch):
            if job_file.preupload:
                _preupload(client, branch)
            result = Result.of(branch, host)
        else:
            result = Result(step, host, failure=branch)
    except PublishError as error:
        result = Result(step, host, failure=Failure.of(branch_of(step), step, error))
    if result.failure is not None:
        sys.stderr.write(f"Error: {result.failure.detail}\n")
    folder.leave(attempt, result)
    return 1 if result.failure else 0


def _preupload(client: Client, branch: VerifiedBranch) -> None:
    """Upload large files from here. Where this node cannot reach the Hub, the driver uploads them."""
    try:
        preupload_lfs(client, branch.repo, branch.files)
    except HubError as error:
        sys.stderr.write(f"not uploaded from this node, so the driver will: {error}\n")
