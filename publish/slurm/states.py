"""What Slurm says of a task or to a submission, and what a maintainer can do about it.

Outside facts: man squeue, "JOB STATE CODES" and "JOB REASON CODES".
"""

from __future__ import annotations

from dataclasses import dataclass

from publish.errors import SlurmError

ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
RUNNING = frozenset(["RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"])
# reasons of pending tasks that no waiting ends; others may pass, when a node comes back or a hold is released
_NEVER = frozenset(
    [
        "PartitionTimeLimit",
        "InvalidAccount",
        "InvalidQOS",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
    ]
)
_LOSSES = {
    "OUT_OF_MEMORY": "ask for more with --mem, then run again",
    "TIMEOUT": "ask for more with --time, then run again",
    "NODE_FAIL": "run again, with other nodes where this one stays ill (--sbatch-option=--exclude=NODE)",
}
_LOSS = "see that the work folder and this Python are on file systems that all nodes share (--work-dir), then run again"
_REFUSALS = (  # what Slurm says, and what a maintainer can do about it
    ("invalid partition", "name a partition of this cluster with --partition (sinfo lists them)"),
    ("account", "name an account of yours with --account (sacctmgr show associations lists them)"),
    ("qos", "pass another limit with --sbatch-option=--qos=..., or ask for less"),
    ("memory", "ask for less with --mem, or for another --partition"),
    ("node configuration", "ask for fewer --cpus or less --mem, or for another --partition"),
    ("time limit", "ask for a shorter --time, or another --partition"),
    ("contact", "wait until the cluster's controller answers (scontrol ping), then run again"),
)
_REFUSAL = "change the options for Slurm (--partition, --account, --time, --mem, --cpus), then run again"


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task of an array as Slurm sees it. ``reason`` is why it does not run yet, or does no more."""

    state: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    def check(self, job: str) -> None:
        """Whether it can ever run.

        Raises:
            SlurmError: Slurm took the job and lets it wait for ever.
        """
        if self.state == "PENDING" and self.reason in _NEVER:
            fix = "ask for what the partition and your account allow (--time, --partition, --account), then run again"
            raise SlurmError(f"Slurm took the tasks and will never run them: {self.reason}", job, fix)


def fix_of_refusal(said: str) -> str:
    """What to do about a command's error."""
    return next((fix for word, fix in _REFUSALS if word in said.lower()), _REFUSAL)


def fix_of_loss(how: str) -> str:
    """What to do about tasks that ended so, without a result."""
    return next((fix for state, fix in _LOSSES.items() if state in how), _LOSS)
