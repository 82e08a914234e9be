"""Where the steps of a release are made. An executor makes branches and the committer publishes them."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from publish.interrupt import Stop, stop_if
from publish.release.job import Job, StepTask
from publish.release.outcome import Failure
from publish.release.preflight import disk_needed
from publish.release.progress import Progress
from publish.release.step import VerifiedBranch, make_step
from publish.release.work_dir import WorkDir
from publish.verify.hf_model import import_torch

_POLL = 0.2  # seconds between two looks at the stop event
_MOST = 8  # more commits in flight gain nothing
_IMPORTS = 660 << 20  # bytes that the process takes for what it imports and for one model's logits
_STEP = 64 << 20  # bytes that a step takes beside its largest tensors: chunks, an index


class Executor(Protocol):
    """Makes steps, several at once, and begins one only while fewer than its limit are in flight.

    A step is in flight from its start until the last of its branches is closed.
    """

    @property
    def limit(self) -> int:
        """Steps in flight at most: so many may lie on the disk."""
        ...

    def make(
        self, tasks: Sequence[StepTask], stop: Stop, refused: threading.Event
    ) -> Generator[VerifiedBranch | Failure, None, None]:
        """The branches and failures of all tasks, as they come. Once ``refused`` is set no further step is begun.

        A generator that is closed or interrupted sets ``stop`` and gives the steps in flight the time that it leaves.

        Raises:
            Interrupted: ``stop`` was set. PublishError: the executor can make no step.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Produced:
    result: VerifiedBranch | Failure


@dataclass(frozen=True, slots=True)
class _Ended:
    folder: Path


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Makes steps in ``threads`` threads, each in a folder below ``folder``; ``limit`` steps may be in flight.

    A step in flight waits for the Hub most of the time. Reading, hashing and writing release the interpreter lock.
    torch is imported before the first step begins: beside a busy thread the import takes ten times as long.
    """

    limit: int
    threads: int
    folder: Path
    progress: Progress

    @classmethod
    def for_job(cls, job: Job, folder: WorkDir, workers: int | None, progress: Progress) -> LocalExecutor:
        """The executor with ``workers`` steps in flight, or as many as this machine allows."""
        limit = workers or default_in_flight(job, folder.folder)
        return cls(limit, min(limit, default_threads(job)), folder.steps, progress)

    def make(
        self, tasks: Sequence[StepTask], stop: Stop, refused: threading.Event
    ) -> Generator[VerifiedBranch | Failure, None, None]:
        """See :meth:`Executor.make`."""
        if tasks:
            self.progress.note("importing torch and transformers")
            import_torch()
        waiting = deque(tasks)
        making: dict[Path, Future[None]] = {}
        in_flight: dict[Path, int] = {}  # folder of a step -> its open branches, and one more while it is being made
        events: SimpleQueue[_Produced | _Ended | VerifiedBranch] = SimpleQueue()  # branches come back when closed
        pool = ThreadPoolExecutor(self.threads, "step")
        try:
            while waiting or in_flight:
                stop_if(stop)
                if refused.is_set():
                    waiting.clear()
                while waiting and len(in_flight) < self.limit:
                    task = waiting.popleft()
                    folder = self.folder / f"step{task.ref.step}"
                    in_flight[folder] = 1
                    making[folder] = pool.submit(_run, task, folder, events, stop)
                try:
                    event = events.get(timeout=_POLL)
                except Empty:
                    continue
                if isinstance(event, _Produced):
                    if isinstance(event.result, VerifiedBranch):
                        in_flight[event.result.folder] += 1
                    yield event.result
                    continue
                if isinstance(event, _Ended):
                    making.pop(event.folder).result()  # raises what ended the thread: an interruption, or a bug
                in_flight[event.folder] -= 1
                if not in_flight[event.folder]:
                    del in_flight[event.folder]
                    shutil.rmtree(event.folder, ignore_errors=True)
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            wait(making.values(), timeout=stop.remaining)


def _run(task: StepTask, folder: Path, events: SimpleQueue[_Produced | _Ended | VerifiedBranch], stop: Stop) -> None:
    try:
        for result in make_step(task.job, task.ref, folder, stop):
            events.put(_Produced(replace(result, released=events) if isinstance(result, VerifiedBranch) else result))
    finally:
        events.put(_Ended(folder))


def default_in_flight(job: Job, folder: Path) -> int:
    """Steps in flight without ``--workers``: eight, as far as the disk of ``folder`` allows. It need not exist yet.

    A commit is a handful of requests, one after the other: on a Hub 100 ms away a step takes a second, of which it
    computes a tenth.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    limit = min(_MOST, len(job.chosen))
    while limit > 1 and disk_needed(job, limit) > free:
        limit -= 1
    return limit


def default_threads(job: Job) -> int:
    """Steps to compute at once on this machine: one a core, each with memory for two of the largest tensors."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - _IMPORTS
    return max(1, min(len(os.sched_getaffinity(0)), memory // (2 * job.plan.largest_tensor + _STEP)))
