"""Steps made by the tasks of job arrays: submitted, followed, and submitted again where one is lost."""

from __future__ import annotations

import shlex
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from publish.errors import PublishError, SlurmError
from publish.interrupt import Stop, stop_if
from publish.release.job import Job, StepTask
from publish.release.outcome import Failure
from publish.release.progress import Progress
from publish.release.step import VerifiedBranch
from publish.schedule import branch_of
from publish.slurm.commands import Settings, Slurm, TaskState, fix_of_loss
from publish.slurm.folder import Attempt, Batch, JobFile, SharedFolder, driver_lock

TRIES = 3  # a step fails after so many lost tasks


@dataclass(frozen=True, slots=True)
class PollIntervals:
    """Seconds. ``results`` and ``queue``: between two polls.

    ``grace``: until a task that Slurm has ended counts as lost; NFS caches directories for 30 s, so its result may be
    seen late. ``silence``: how long the controller may not answer. ``refused``: until sbatch is asked again after it
    refused while other tasks were under way.
    """

    results: float = 0.5
    queue: float = 5.0
    grace: float = 30.0
    silence: float = 1800.0
    refused: float = 30.0


class JobArray:
    """At most ``workers`` tasks run at once, and at most twice as many steps lie in the folder.

    Every missing step is submitted at once, as far as an array is long. A task that finds the folder full leaves
    without starting its step; from then on only as many are submitted as there is room for.
    """

    def __init__(
        self,
        slurm: Slurm,
        settings: Settings,
        intervals: PollIntervals,
        folder: SharedFolder,
        workers: int,
        repo: str,
    ) -> None:
        self.slurm, self.settings, self.intervals = slurm, settings, intervals
        self.folder, self.workers, self.slots, self.repo = folder, workers, 2 * workers, repo
        self.longest = slurm.largest_array()
        self.waiting: deque[int] = deque()
        self.in_flight: dict[Attempt, int] = {}
        self.held: dict[Path, Attempt] = {}  # folders of verified branches that are being committed
        self.closed: SimpleQueue[VerifiedBranch] = SimpleQueue()
        self.full = False
        self.lost: Counter[int] = Counter()
        self._states: dict[Attempt, TaskState] = {}
        self._gone: dict[Attempt, float] = {}
        self._looked = self._answered = time.monotonic()
        self._refused = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether a step is not made yet, or its branch is not closed yet."""
        return bool(self.waiting or self.in_flight or self.held)

    def begin(self, steps: Sequence[int]) -> None:
        """Take over what an earlier driver left of these steps; the others are to be submitted."""
        for name, batch in self.folder.batches().items():
            for index, step in batch.steps.items():
                if step in steps and step not in self.in_flight.values():
                    self.in_flight[Attempt(name, int(index))] = step
        for attempt in self.folder.attempts() - self.in_flight.keys():
            self.folder.settle(attempt)
        under_way = set(self.in_flight.values())
        self.waiting.extend(step for step in steps if step not in under_way)

    def submit(self) -> None:
        """Submit as many waiting steps as there is room for.

        Raises:
            SlurmError: sbatch refuses, and no task is under way whose end could change that.
        """
        count = self._room()
        if not count:
            return
        steps = [self.waiting.popleft() for _ in range(count)]
        name = uuid.uuid4().hex[:12]
        numbered = {str(index): step for index, step in enumerate(steps)}
        self.folder.add(name, Batch(numbered, self.slots))
        array = f"0-{count - 1}%{self.workers - len(self.in_flight)}"
        log = self.folder.root / "logs" / f"{name}-%a.log"
        try:
            arguments = (str(self.folder.root), name)
            self.slurm.submit(job_name(name), self.folder.script, arguments, array, log, self.settings)
        except SlurmError:
            self.folder.add(name, Batch({}, self.slots))  # should it have been submitted, its tasks end at once
            self.waiting.extendleft(reversed(steps))
            if not self.in_flight and not self.held:
                raise
            self._refused = time.monotonic()
            return
        self.in_flight |= {Attempt(name, index): step for index, step in enumerate(steps)}

    def _room(self) -> int:
        """How many steps to submit now.

        Only when at most half of the workers are busy, and the new array gets the others: arrays do not add up.
        """
        if not self.waiting or len(self.in_flight) > self.workers // 2:
            return 0
        if (self.in_flight or self.held) and time.monotonic() < self._refused + self.intervals.refused:
            return 0
        most = min(len(self.waiting), self.longest)
        if not self.full:
            return most
        owners = set(self.folder.slots().values())
        room = min(most, self.slots - len(owners | self.in_flight.keys()))
        return room if room >= min(len(self.waiting), self.workers) else 0

    def collect(self) -> Iterator[VerifiedBranch | Failure]:
        """The results since the last call. A verified branch keeps its slot until it is closed."""
        for attempt in self.folder.results() - set(self.held.values()):
            if attempt not in self.in_flight:
                self.folder.settle(attempt)  # a cancelled task had ended after all
            elif result := self._result(attempt):
                yield result
        if time.monotonic() >= self._looked + self.intervals.queue:
            self._looked = time.monotonic()
            yield from self._look()

    def _result(self, attempt: Attempt) -> VerifiedBranch | Failure | None:
        """What a task left; None where its step waits for another task."""
        step = self.in_flight[attempt]
        try:
            result = self.folder.result(attempt)
            branch = result.branch(self.repo) if result.folder else None
        except PublishError as error:
            return self._lost(attempt, f"its result cannot be used: {error.what}")
        del self.in_flight[attempt]
        if branch is not None:
            self.held[branch.folder] = attempt
            return replace(branch, released=self.closed)
        self.settle(attempt)
        if result.failure is None:  # the folder was full
            self.full = True
            self.waiting.append(step)
        return result.failure

    def _look(self) -> Iterator[Failure]:
        """Ask Slurm for the tasks under way: the failures of steps whose tasks were lost too often."""
        try:
            known = self.slurm.tasks(sorted({job_name(attempt.batch) for attempt in self.in_flight}))
        except SlurmError:
            if time.monotonic() > self._answered + self.intervals.silence:
                raise
            return
        now = self._answered = time.monotonic()
        for attempt in tuple(self.in_flight):
            state = known.get((job_name(attempt.batch), attempt.index))
            if state is not None:
                self._states[attempt] = state
                state.check(job_name(attempt.batch))
            if state is not None and not state.ended:
                self._gone.pop(attempt, None)
                continue
            overdue = now >= self._gone.setdefault(attempt, now) + self.intervals.grace
            if (
                overdue
                and attempt not in self.folder.results()
                and (failure := self._lost(attempt, self._how(attempt)))
            ):
                yield failure

    def _how(self, attempt: Attempt) -> str:
        """How a task ended, as far as anybody knows."""
        seen = self._states.get(attempt)
        accounted = self.slurm.sacct_state(job_name(attempt.batch), attempt.index)
        return accounted or (seen.state if seen else "Slurm does not know it")

    def _lost(self, attempt: Attempt, how: str) -> Failure | None:
        """Have another task make the step, unless as many as :data:`TRIES` were lost."""
        step = self.in_flight.pop(attempt)
        tail = self.folder.log_tail(attempt)
        self.settle(attempt)
        self.lost[step] += 1
        if self.lost[step] < TRIES:
            self.waiting.append(step)
            return None
        wrote = f"; it wrote: {tail}" if tail else ""
        what = f"{TRIES} tasks ended without a result; the last one: {how}{wrote}"
        where = f"job {job_name(attempt.batch)}, task {attempt.index}"
        return Failure.of(branch_of(step), step, SlurmError(what, where, fix_of_loss(how)))

    def settle(self, attempt: Attempt) -> None:
        """Remove what the task left, and free its slot."""
        self.folder.settle(attempt)
        self._states.pop(attempt, None)
        self._gone.pop(attempt, None)

    def settle_closed(self, timeout: float) -> None:
        """Settle the tasks whose branches were closed; wait up to ``timeout`` seconds for the first one."""
        try:
            branch = self.closed.get(timeout=timeout)
            while True:
                self.settle(self.held.pop(branch.folder))
                branch = self.closed.get_nowait()
        except Empty:
            return

    def cancel(self) -> None:
        """Cancel the tasks under way. Results that are there stay for the next driver.

        Raises:
            SlurmError: the controller does not answer.
        """
        self.slurm.cancel(sorted({job_name(attempt.batch) for attempt in self.in_flight}))
        for attempt in self.in_flight.keys() - self.folder.results():
            self.folder.settle(attempt)

    def give_up(self) -> None:
        """Cancel the tasks under way, and submit no other."""
        self.cancel()
        self.in_flight.clear()
        self.waiting.clear()

    def note(self) -> str:
        """How many tasks run and wait, for the progress bar."""
        states = [self._states[attempt] for attempt in self.in_flight if attempt in self._states]
        running = sum(state.running for state in states)
        reasons = Counter(state.reason for state in states if not state.running and state.reason not in ("", "None"))
        why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
        queued = len(self.in_flight) - running + len(self.waiting)
        return f"tasks: {running} running, {queued} waiting{why}; steps to commit: {len(self.held)}"


def job_name(batch: str) -> str:
    """The name of an array's job; unique, so that Slurm can be asked by it."""
    return f"publish-{batch}"


FOLDER = "slurm"  # in the work folder
DEFAULT_TASKS = 16
SCRIPT = """#!/bin/sh
# A task of publish's job array: $1 is the shared folder, $2 the array's name in it.
exec {python} -m publish.slurm "$1" "$2" "$SLURM_ARRAY_TASK_ID"
"""


@dataclass(frozen=True)
class SlurmExecutor:
    """An executor whose steps are made by tasks of job arrays. ``workers`` tasks run at once.

    Twice as many steps may lie in ``work_dir``, which all nodes share. When a driver was killed, the next driver of the
    same job uses the results that are there and follows the tasks that run or wait: nothing is submitted twice.
    """

    slurm: Slurm
    workers: int
    work_dir: Path
    preupload: bool
    progress: Progress
    settings: Settings = field(default_factory=Settings)
    intervals: PollIntervals = field(default_factory=PollIntervals)

    @property
    def limit(self) -> int:
        return 2 * self.workers

    def make(
        self, tasks: Sequence[StepTask], stop: Stop, refused: threading.Event
    ) -> Generator[VerifiedBranch | Failure, None, None]:
        """See :meth:`publish.release.executors.Executor.make`; all tasks are of one release.

        When it is interrupted, pending and running tasks are cancelled; results stay for the next driver.

        Raises:
            SlurmError: Slurm refuses, or another driver works in this folder. StorageError: it cannot be written.
        """
        if not tasks:
            return
        job, steps = tasks[0].job, [task.ref.step for task in tasks if task.ref.step is not None]
        with driver_lock(self.work_dir):
            folder = SharedFolder(self.work_dir.absolute() / FOLDER)
            self._prepare(folder, job)
            array = JobArray(self.slurm, self.settings, self.intervals, folder, self.workers, job.model.repo)
            array.begin(steps)
            try:
                while array.busy:
                    stop_if(stop)
                    if refused.is_set():
                        array.give_up()
                    array.submit()
                    yield from array.collect()
                    self.progress.note(array.note())
                    array.settle_closed(timeout=self.intervals.results)
            except BaseException:
                stop.set()
                array.cancel()
                raise
            folder.clear()

    def _prepare(self, folder: SharedFolder, job: Job) -> None:
        """Keep the folder of the same job. Cancel the tasks of any other, and start from an empty folder."""
        job_file = JobFile.of(job, preupload=self.preupload)
        if folder.is_of(job_file):
            return
        self.slurm.cancel([job_name(batch) for batch in folder.batches()])
        folder.clear()
        tokenizer = job.tokenizer.files if job.tokenizer else {}
        folder.describe(job_file, tokenizer, SCRIPT.format(python=shlex.quote(job_file.python)))
