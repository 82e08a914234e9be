"""The steps that an engine on this machine has before it, begun, and in its threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from publish.convert.folder import small_files
from publish.convert.hfconfig import CONFIG_NAME
from publish.release.job import Job
from publish.release.making import Making
from publish.release.step import BegunStep, ProvenStep, begin_step
from publish.verify.hf_model import model_spec

T = TypeVar("T")


def know_model(job: Job) -> None:
    """Build the model of the job's steps, which every one of their gates will ask for.

    Raises:
        GateError: transformers builds none; so will say the gate of each step.
    """
    names = tuple(sorted(recipe.name for recipe in job.plan.recipes))
    model_spec(small_files(job.plan, job.tokenizer)[CONFIG_NAME], names, job.release.base)


class Line(Generic[T]):
    """Every step once: whole where the model is known, else begun, and finished later. For one thread.

    ``running`` maps what is in the threads to its step: at most ``making.workers``. As many more as ``making.ahead``
    may be begun.
    """

    def __init__(self, making: Making, steps: Sequence[int], then: Callable[[ProvenStep], T]) -> None:
        self.making, self.then = making, then
        self.running: dict[Future[Any], int] = {}
        self._todo = deque(steps)
        self._begun = deque[BegunStep]()
        self._beginning = set[Future[Any]]()

    @property
    def begun(self) -> int:
        """Steps that wait to be finished."""
        return len(self._begun)

    def fill(self, pool: ThreadPoolExecutor, *, known: bool) -> bool:
        """Give free threads the next that they can do; whether anything is under way. ``known``: the model is."""
        making = self.making
        while len(self.running) < making.workers:
            if known and self._begun:
                begun = self._begun.popleft()
                self.running[pool.submit(self._finish, begun)] = begun.step
            elif known and self._todo:
                self._run(pool, self._whole)
            elif self._todo and len(self._begun) + len(self.running) < making.workers + making.ahead:
                self._beginning.add(self._run(pool, self._begin))
            else:
                break
        return bool(self.running or self._begun)

    def ended(self, future: Future[Any]) -> int | None:
        """The step that ended with ``future``; None where it only has been begun."""
        step = self.running.pop(future)
        if future in self._beginning:
            self._beginning.remove(future)
            if future.exception() is None and (begun := future.result()) is not None:
                self._begun.append(begun)
                return None
        return step

    def close(self) -> None:
        """Discard the steps that nobody will finish."""
        ended = [
            each.result() for each in self._beginning if each.done() and not each.cancelled() and not each.exception()
        ]
        for begun in (*self._begun, *ended):
            if begun is not None:
                begun.discard()

    def _run(self, pool: ThreadPoolExecutor, work: Callable[[int], Any]) -> Future[Any]:
        step = self._todo.popleft()
        future = pool.submit(work, step)
        self.running[future] = step
        return future

    def _begin(self, step: int) -> BegunStep | None:
        making = self.making
        if making.hopeless.is_set():
            return None
        return begin_step(
            making.job,
            making.source(step),
            making.place.work,
            logits=making.logits,
            stop=making.stop,
        )

    def _finish(self, begun: BegunStep) -> T | None:
        if self.making.hopeless.is_set():
            begun.discard()
            return None
        return self.then(begun.finish(self.making.tokenizer))

    def _whole(self, step: int) -> T | None:
        begun = self._begin(step)
        return None if begun is None else self._finish(begun)
