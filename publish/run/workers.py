"""How many steps to have in flight, where nobody says: as many as cores, memory and disk allow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publish.run.job import Job
from publish.run.target import disk_needed
from publish.verify.apart import MEMORY

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
