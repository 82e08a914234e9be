"""Steps made by the tasks of a job array. The driver submits, follows, submits again, and publishes what they leave."""

from __future__ import annotations

import shlex
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from publish.errors import PublishError, SlurmError
from publish.interrupt import stop_if
from publish.release.executors import broken_off
from publish.release.job import Job
from publish.release.making import Making
from publish.release.step import ProvenStep
from publish.slurm.commands import Settings, Slurm, TaskState, fix_of_loss
from publish.slurm.folder import Attempt, Batch, JobDescription, SharedFolder, locked

# The steps of a release as tasks of job arrays: submitted, followed, and submitted again where one got lost.


TRIES = 3  # tasks for one step that may end without a result


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. ``results`` and ``queue``: between two looks. ``grace``: until a task that Slurm has ended counts as
    lost, for its result may be seen late over NFS (its directories are cached for 30 s). ``silence``: how long the
    controller may not answer. ``refused``: until sbatch is asked again after it said no while tasks are under way.
    """

    results: float = 0.5
    queue: float = 5.0
    grace: float = 30.0
    silence: float = 1800.0
    refused: float = 30.0


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a step: it is proven, or why it is not."""

    attempt: Attempt
    step: int
    outcome: ProvenStep | PublishError


class Array:
    """At most ``workers`` tasks run at once, and at most twice as many steps lie in the folder.

    Every missing step is submitted at once, as far as an array is long. A task that finds the folder full leaves
    without starting its step; from then on only as many are submitted as there is room for.
    """

    def __init__(self, slurm: Slurm, settings: Settings, pace: Pace, folder: SharedFolder, workers: int) -> None:
        self.slurm, self.settings, self.pace = slurm, settings, pace
        self.folder, self.workers, self.places = folder, workers, 2 * workers
        self.longest = slurm.largest_array()
        self.waiting: deque[int] = deque()
        self.flying: dict[Attempt, int] = {}
        self.held: set[Attempt] = set()  # proven, and being published
        self.full = False
        self.lost: Counter[int] = Counter()
        self._states: dict[Attempt, TaskState] = {}
        self._gone: dict[Attempt, float] = {}
        self._looked = self._answered = time.monotonic()
        self._refused = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether a step is not made yet."""
        return bool(self.waiting or self.flying)

    def begin(self, steps: Sequence[int]) -> None:
        """Take over what an earlier driver left of these steps; the others are to be submitted."""
        for name, batch in self.folder.batches().items():
            for index, step in batch.steps.items():
                if step in steps and step not in self.flying.values():
                    self.flying[Attempt(name, int(index))] = step
        for attempt in self.folder.attempts() - self.flying.keys():
            self.folder.settle(attempt)
        under_way = set(self.flying.values())
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
        self.folder.add(name, Batch(numbered, self.places))
        array = f"0-{count - 1}%{self.workers - len(self.flying)}"
        log = self.folder.root / "logs" / f"{name}-%a.log"
        try:
            arguments = (str(self.folder.root), name)
            self.slurm.submit(job_name(name), self.folder.script, arguments, array, log, self.settings)
        except SlurmError:
            self.folder.add(name, Batch({}, self.places))  # should it have been submitted, its tasks end at once
            self.waiting.extendleft(reversed(steps))
            if not self.flying and not self.held:
                raise
            self._refused = time.monotonic()
            return
        self.flying |= {Attempt(name, index): step for index, step in enumerate(steps)}

    def _room(self) -> int:
        """How many steps to submit now.

        Only when at most half of the workers are busy, and the new array gets the others: arrays do not add up.
        """
        if not self.waiting or len(self.flying) > self.workers // 2:
            return 0
        if (self.flying or self.held) and time.monotonic() < self._refused + self.pace.refused:
            return 0
        most = min(len(self.waiting), self.longest)
        if not self.full:
            return most
        owners = set(self.folder.places().values())
        room = min(most, self.places - len(owners | self.flying.keys()))
        return room if room >= min(len(self.waiting), self.workers) else 0

    def collect(self) -> Iterator[Made]:
        """The steps that ended since the last call. A proven one keeps its place until :meth:`settle`."""
        for attempt in self.folder.results():
            if attempt in self.held:
                continue
            if attempt not in self.flying:
                self.folder.settle(attempt)  # a task that was given up had ended after all
            elif made := self._ended(attempt):
                yield made
        if time.monotonic() >= self._looked + self.pace.queue:
            self._looked = time.monotonic()
            yield from self._look()

    def _ended(self, attempt: Attempt) -> Made | None:
        step = self.flying[attempt]
        try:
            result = self.folder.result(attempt)
            proven = result.proven() if result.error is None and result.folder else None
        except PublishError as error:
            return self._lost(attempt, f"its result cannot be used: {error.what}")
        del self.flying[attempt]
        if proven is not None:
            self.held.add(attempt)
            return Made(attempt, step, proven)
        self.settle(attempt)
        if result.error is not None:
            return Made(attempt, step, result.error.error())
        self.full = True
        self.waiting.append(step)
        return None

    def _look(self) -> Iterator[Made]:
        """Ask Slurm for the tasks under way; the lost ones that are not tried again."""
        try:
            known = self.slurm.tasks(sorted({job_name(each.batch) for each in self.flying}))
        except SlurmError:
            if time.monotonic() > self._answered + self.pace.silence:
                raise
            return
        now = self._answered = time.monotonic()
        for attempt in tuple(self.flying):
            state = known.get((job_name(attempt.batch), attempt.index))
            if state is not None:
                self._states[attempt] = state
                state.check(job_name(attempt.batch))
            if state is not None and not state.ended:
                self._gone.pop(attempt, None)
                continue
            overdue = now >= self._gone.setdefault(attempt, now) + self.pace.grace
            if overdue and attempt not in self.folder.results() and (made := self._lost(attempt, self._how(attempt))):
                yield made

    def _how(self, attempt: Attempt) -> str:
        """How a task ended, as far as anybody knows."""
        seen = self._states.get(attempt)
        told = self.slurm.fate(job_name(attempt.batch), attempt.index)
        return told or (seen.state if seen else "Slurm does not know it")

    def _lost(self, attempt: Attempt, how: str) -> Made | None:
        """Have another task make the step, unless enough have tried."""
        step = self.flying.pop(attempt)
        words = self.folder.last_words(attempt)
        self.settle(attempt)
        self.lost[step] += 1
        if self.lost[step] < TRIES:
            self.waiting.append(step)
            return None
        wrote = f"; it wrote: {words}" if words else ""
        what = f"{TRIES} tasks ended without a result, the last one so: {how}{wrote}"
        where = f"job {job_name(attempt.batch)}, task {attempt.index}"
        return Made(attempt, step, SlurmError(what, where, fix_of_loss(how)))

    def settle(self, attempt: Attempt) -> None:
        """Nothing of the task is needed any more."""
        self.folder.settle(attempt)
        self.held.discard(attempt)
        self._states.pop(attempt, None)
        self._gone.pop(attempt, None)

    def cancel(self) -> None:
        """End the tasks under way. Results that are there stay for the next driver.

        Raises:
            SlurmError: the controller does not answer.
        """
        self.slurm.cancel(sorted({job_name(each.batch) for each in self.flying}))
        for attempt in self.flying.keys() - self.folder.results():
            self.folder.settle(attempt)

    def give_up(self) -> None:
        """End the tasks under way, and begin no other."""
        self.cancel()
        self.flying.clear()
        self.waiting.clear()

    def note(self) -> str:
        """Where the tasks are, in a few words."""
        states = [self._states[each] for each in self.flying if each in self._states]
        running = sum(state.running for state in states)
        reasons = Counter(state.reason for state in states if not state.running and state.reason not in ("", "None"))
        why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
        queued = len(self.flying) - running + len(self.waiting)
        return f"tasks: {running} running, {queued} waiting{why}; steps to commit: {len(self.held)}"


def job_name(batch: str) -> str:
    """The name of an array's job; unique, so that Slurm can be asked by it."""
    return f"publish-{batch}"


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
