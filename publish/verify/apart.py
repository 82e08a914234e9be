"""What needs torch or transformers, computed in a process of its own.

Importing the two takes seconds in which an interpreter does nothing else, and hundreds of MB. A release starts that
process early and goes on: it reads, converts and hashes meanwhile, and imports neither itself.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Protocol, TypeVar

from publish.errors import ProcessError, PublishError
from publish.neox.checkpoint import RawCheckpoint
from publish.sources.files import CheckpointFiles
from publish.verify.lent import LentFiles, Wish

T = TypeVar("T")
MEMORY = 512 << 20  # bytes that a process takes for what it imports and for one model's logits
_PATIENCE = 2.0  # seconds that a process gets to end at our own end


class Compute(Protocol):
    """Calls a function with these arguments, here or in another process. Function, arguments and result are pickled."""

    def __call__(self, function: Callable[..., T], /, *arguments: object) -> T: ...


def here(function: Callable[..., T], /, *arguments: object) -> T:
    """:class:`Compute` in this very thread."""
    return function(*arguments)


@dataclass(frozen=True, slots=True)
class Lent:
    """Stands for a checkpoint's files on their way to the other process; ``number`` is the argument that has them."""

    number: int
    where: str
    sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """The other process wants something of the files of an argument."""

    number: int
    wish: Wish


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, or the error instead; ``bug`` is the traceback of what is none of ours."""

    result: Any = None
    error: PublishError | None = None
    bug: str | None = None

    def value(self) -> Any:
        """The result.

        Raises:
            PublishError: the one that was raised there. RuntimeError: another was, with its traceback.
        """
        if self.error is not None:
            raise self.error
        if self.bug is not None:
            raise RuntimeError(f"in the process that computes:\n{self.bug}")
        return self.result


def answer_of(function: Callable[..., Any], *arguments: object) -> Answer:
    """What became of a call, but for bugs, which stay exceptions."""
    try:
        return Answer(function(*arguments))
    except PublishError as error:
        return Answer(error=error)


class Apart:
    """:class:`Compute` in processes of their own: one, and more only while all of them compute.

    A process ends with this one, however that ends. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._idle: list[_Process] = []
        self._running = 0
        self._most, self._threads = 1, os.cpu_count() or 1
        atexit.register(self.close)

    def share(self, workers: int) -> None:
        """``workers`` threads will call: as many processes at most, as memory allows, each with its share of cores.

        Computations that all use every core wait for each other in every product: ten times as long for small
        matrices. ``OMP_NUM_THREADS`` has the last word.
        """
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with self._free:
            self._most = max(1, min(workers, available // MEMORY))
            self._threads = max(1, (os.cpu_count() or 1) // workers)

    def __call__(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Raises: PublishError: the function's. ProcessError: the process ended. RuntimeError: a bug, there."""
        lent, files = _lent(arguments)
        call = pickle.dumps((function, lent))
        process = self._taken()
        try:
            answer = process.ask(call, files)
        except BaseException:
            process.close()
            self._gone()
            raise
        with self._free:
            self._idle.append(process)
            self._free.notify()
        result: T = answer.value()
        return result

    def close(self) -> None:
        """End the processes that compute nothing."""
        with self._free:
            idle, self._idle = self._idle, []
            self._running -= len(idle)
            self._free.notify_all()
        for process in idle:
            process.close()

    def _taken(self) -> _Process:
        with self._free:
            self._free.wait_for(lambda: self._idle or self._running < self._most)
            while self._idle:
                if (process := self._idle.pop()).alive:
                    return process
                process.close()
                self._running -= 1
            self._running += 1
        try:
            return _Process(self._threads)
        except BaseException:
            self._gone()
            raise

    def _gone(self) -> None:
        with self._free:
            self._running -= 1
            self._free.notify()


class _Process:
    """One ``python -m publish.verify``, and the pipe to it, which is its standard input."""

    def __init__(self, threads: int) -> None:
        environment = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(each or str(Path.cwd()) for each in sys.path),
        }
        self._channel, theirs = Pipe()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "publish.verify"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    process_group=0,  # Ctrl-C is for us: it ends when the pipe does
                )
            except OSError as error:
                self._channel.close()
                raise ProcessError(
                    f"cannot start a process: {error.strerror}", sys.executable, "free memory, or lower --workers"
                ) from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, call: bytes, files: Mapping[int, CheckpointFiles]) -> Answer:
        """Send the pickled call, read what it wants of ``files``, and wait for the answer.

        Raises:
            ProcessError: the process ended before it answered.
        """
        try:
            self._channel.send_bytes(call)
            while isinstance(said := self._channel.recv(), Asked):
                self._channel.send(answer_of(said.wish.fulfil, files[said.number]))
        except (EOFError, OSError) as error:
            raise self._ended() from error
        assert isinstance(said, Answer)
        return said

    def _ended(self) -> ProcessError:
        try:
            code = self._process.wait(_PATIENCE)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            how = "the pipe to it broke"
        return ProcessError(
            f"the process that computes with torch and transformers ended: {how}",
            "python -m publish.verify",
            "signal 9 is what a machine without memory sends: free some, or lower --workers; then run again",
        )

    def close(self) -> None:
        """End it: at the end of the pipe it leaves by itself, whatever it was at."""
        self._channel.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _lent(arguments: tuple[object, ...]) -> tuple[tuple[object, ...], dict[int, CheckpointFiles]]:
    """The arguments without files that are open, and those files by the argument's number."""
    sent, files = list(arguments), dict[int, CheckpointFiles]()
    for number, argument in enumerate(arguments):
        if isinstance(argument, RawCheckpoint):
            files[number] = argument.files
            stand_in: Any = Lent(number, argument.files.where, dict(argument.files.sizes))
            sent[number] = replace(argument, files=stand_in)
    return tuple(sent), files


def borrowed(argument: object, ask: Callable[[Asked], Any]) -> object:
    """An argument as it arrived, with files that ``ask`` reads where it had some."""
    if not isinstance(argument, RawCheckpoint) or not isinstance(lent := argument.files, Lent):
        return argument
    return replace(argument, files=LentFiles(lent.where, lent.sizes, lambda wish: ask(Asked(lent.number, wish))))


apart = Apart()
