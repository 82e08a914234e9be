"""Steps made by the tasks of a job array. The driver submits, follows, submits again, and publishes what they leave."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from publish.errors import PublishError
from publish.run.engine import broken_off
from publish.run.job import Job
from publish.run.making import Making
from publish.run.step import ProvenStep
from publish.slurm.array import Array, Made, Pace, job_name
from publish.slurm.commands import Slurm
from publish.slurm.description import JobDescription
from publish.slurm.folder import SharedFolder, locked
from publish.slurm.settings import Settings
from publish.wire.clock import stop_if

FOLDER = "slurm"  # in the work folder
TASKS = 16
COMMITTERS = 4  # commits on their way at once; the quota is one for all
SCRIPT = """#!/bin/sh
# A task of publish's job array: $1 is the shared folder, $2 the array's name in it.
exec {python} -m publish.slurm "$1" "$2" "$SLURM_ARRAY_TASK_ID"
"""
T = TypeVar("T")


@dataclass(frozen=True)
class SlurmEngine:
    """An :class:`publish.run.engine.Engine`. ``workers`` tasks run at once, and up to twice as many steps lie waiting.

    A driver that was killed is taken over by the next of the same job: results that are there are used, tasks that
    run or wait in the queue are followed, nothing is submitted twice.
    """

    slurm: Slurm
    settings: Settings = field(default_factory=Settings)
    pace: Pace = field(default_factory=Pace)

    def usual_workers(self, job: Job, _folder: Path) -> int:
        """Tasks at once: the cluster's cores are not this machine's, and the commit quota is the narrow place."""
        return min(TASKS, len(job.chosen))

    def run(
        self, making: Making, steps: Sequence[int], then: Callable[[ProvenStep], T]
    ) -> Generator[tuple[int, Future[T | None]], None, None]:
        """As :meth:`publish.run.engine.Engine.run`; the pending and running tasks of a broken-off run are cancelled.

        Raises:
            SlurmError: Slurm refuses, or another driver works in this folder. StorageError: it cannot be written.
        """
        if not steps:
            return
        with locked(making.place.folder):
            folder = SharedFolder(making.place.folder.absolute() / FOLDER)
            self._prepare(folder, making)
            array = Array(self.slurm, self.settings, self.pace, folder, making.workers)
            array.begin(steps)
            try:
                yield from self._follow(array, making, then)
            except BaseException:
                array.cancel()
                raise
            folder.clear()

    def _prepare(self, folder: SharedFolder, making: Making) -> None:
        """Keep the folder of the same job; make any other anew, its tasks cancelled."""
        description = JobDescription.of(making)
        if folder.is_of(description):
            return
        self.slurm.cancel([job_name(batch) for batch in folder.batches()])
        folder.clear()
        tokenizer = making.job.tokenizer.files if making.job.tokenizer else {}
        folder.describe(description, tokenizer, SCRIPT.format(python=shlex.quote(description.python)))

    def _follow(
        self, array: Array, making: Making, then: Callable[[ProvenStep], T]
    ) -> Generator[tuple[int, Future[T | None]], None, None]:
        pool = ThreadPoolExecutor(COMMITTERS, "commit")
        committing: dict[Future[T | None], Made] = {}
        with broken_off(pool, committing, making.stop):
            while array.busy or committing:
                stop_if(making.stop)
                if making.hopeless.is_set():
                    array.give_up()
                array.submit()
                for made in array.collect():
                    if isinstance(made.outcome, ProvenStep):
                        committing[pool.submit(then, _kept(making, made.outcome))] = made
                    else:
                        yield made.step, _failed(made.outcome)
                making.progress.note(array.note())
                if not committing:
                    making.stop.wait(self.pace.results)
                for future in wait(committing, self.pace.results, FIRST_COMPLETED).done:
                    made = committing.pop(future)
                    array.settle(made.attempt)
                    yield made.step, future


def _kept(making: Making, proven: ProvenStep) -> ProvenStep:
    """The last step in the driver's own folder, since the release keeps it for ``main``; any other as it is."""
    if proven.step != making.job.steps[-1]:
        return proven
    folder = proven.folder.rename(making.place.work / proven.folder.name)
    files = tuple(replace(file, content=folder / file.path) for file in proven.files)
    return replace(proven, folder=folder, files=files)


def _failed(error: PublishError) -> Future[T]:
    future: Future[T] = Future()
    future.set_exception(error)
    return future
