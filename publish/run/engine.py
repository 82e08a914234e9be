"""Where the steps of a release are made: an engine makes them, the release publishes what it gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from publish.hub.status import Expected
from publish.run.job import Job
from publish.run.progress import Progress
from publish.run.step import ProvenStep, make_step
from publish.run.workplace import Workplace
from publish.source.checkpoints import CheckpointSource
from publish.wire.client import Client

GRACE = 5.0  # seconds that steps in flight get to end after Ctrl-C; then the process ends without them
T = TypeVar("T")


@dataclass(frozen=True)
class Making:
    """What it takes to make the steps of one release, wherever that happens.

    ``tokenizer`` is the fingerprint of the job's, ``workers`` how many steps are in flight. Once ``hopeless`` is set,
    no further step is begun: what one was refused, all would be.
    """

    job: Job
    expected: Mapping[int, Expected]
    tokenizer: str | None
    client: Client
    place: Workplace
    workers: int
    logits: str
    progress: Progress
    stop: threading.Event
    hopeless: threading.Event = field(default_factory=threading.Event)

    def source(self, step: int) -> CheckpointSource:
        """The step's checkpoint, pinned to what it was when the release began."""
        return replace(self.job.run.steps[step], commit=self.expected[step].source_commit)


class Engine(Protocol):
    """Makes steps, several at once, and hands each to ``then`` as it is proven."""

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


class LocalEngine:
    """Threads of this process: hashing, reading and uploading release the interpreter lock."""

    def run(
        self, making: Making, steps: Sequence[int], then: Callable[[ProvenStep], T]
    ) -> Generator[tuple[int, Future[T | None]], None, None]:
        def whole(step: int) -> T | None:
            if making.hopeless.is_set():
                return None
            return then(
                make_step(
                    making.job,
                    making.source(step),
                    making.place.work,
                    logits=making.logits,
                    tokenizer=making.tokenizer,
                    stop=making.stop,
                )
            )

        pool = ThreadPoolExecutor(making.workers, "step")
        waiting: dict[Future[T | None], int] = {}
        with broken_off(pool, waiting, making.stop):
            waiting |= {pool.submit(whole, step): step for step in steps}
            while waiting:
                ended, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield waiting.pop(future), future


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
