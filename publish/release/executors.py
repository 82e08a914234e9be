"""Where the steps of a release are made: an engine makes them, the release publishes what it gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from publish.release.job import Job
from publish.release.line import Line, know_model
from publish.release.making import Making
from publish.release.preflight import sane_workers
from publish.release.step import ProvenStep

GRACE = 5.0  # seconds that steps in flight get to end after Ctrl-C; then the process ends without them
T = TypeVar("T")


class Engine(Protocol):
    """Makes steps, several at once, and hands each to ``then`` as it is proven."""

    def usual_workers(self, job: Job, folder: Path) -> int:
        """Steps in flight where nobody says; ``folder`` is the work folder, which need not be there yet."""
        ...

    def run(
        self, making: Making, steps: Sequence[int], then: Callable[[ProvenStep], T]
    ) -> Generator[tuple[int, Future[T | None]], None, None]:
        """Each step once, in the order in which they end, with what ``then`` made of it or why it failed.

        The result is None for a step that was not begun, since all hope was lost.

        ``then`` is called in other threads and owns the folder that it is given. Closed or interrupted, an engine
        ends what is in flight, within :data:`GRACE`.

        Raises:
            PublishError: it can make no step at all.
        """
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Threads of this process: hashing, reading and uploading release the interpreter lock."""

    def usual_workers(self, job: Job, folder: Path) -> int:
        return sane_workers(job, folder)

    def run(
        self, making: Making, steps: Sequence[int], then: Callable[[ProvenStep], T]
    ) -> Generator[tuple[int, Future[T | None]], None, None]:
        pool = ThreadPoolExecutor(making.workers + 1, "step")
        with closing(Line(making, steps, then)) as line, broken_off(pool, line.running, making.stop):
            ready = pool.submit(know_model, making.job)
            while line.fill(pool, known=ready.done()):
                awaited = line.running if ready.done() else (*line.running, ready)
                ended, _ = wait(awaited, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ended - {ready}:
                    if (step := line.ended(future)) is not None:
                        yield step, future
                if not ready.done():
                    making.progress.note(f"{line.begun} converted, transformers is loading")


@contextmanager
def broken_off(pool: ThreadPoolExecutor, waiting: Mapping[Future[T], object], stop: threading.Event) -> Iterator[None]:
    """Shuts the pool at the end; on an exception sets ``stop``, and what is ``waiting`` gets :data:`GRACE` to end."""
    try:
        yield
    except BaseException:
        stop.set()
        for future in waiting:
            future.cancel()
        wait(waiting, timeout=GRACE)
        raise
    finally:
        pool.shutdown(wait=False)
