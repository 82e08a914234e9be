"""Progress for people, on stderr; silent when stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from publish.hub.rate_limits import Wait


class Progress(Protocol):
    """How a release reports while it runs."""

    def start(self, total: int, done: int) -> None: ...

    def step(self, branch: str, outcome: str) -> None: ...

    def wait(self, wait: Wait) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Reports nothing."""

    def start(self, total: int, done: int) -> None: ...

    def step(self, branch: str, outcome: str) -> None: ...

    def wait(self, wait: Wait) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Bar:
    """A progress bar: steps done, failed and left, and what is waited for."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("steps", total=None, note="")
        self._failed = 0

    def start(self, total: int, done: int) -> None:
        self._bar.start()
        self._bar.update(self._task, total=total, completed=done)

    def step(self, branch: str, outcome: str) -> None:
        self._failed += outcome == "failed"
        note = branch + (f", {self._failed} failed" if self._failed else "")
        self._bar.update(self._task, advance=1, note=note)

    def wait(self, wait: Wait) -> None:
        until = time.strftime("%H:%M:%S", time.localtime(wait.until))
        self._bar.update(self._task, note=f"waiting for {wait.reason} until {until}")

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)

    def stop(self) -> None:
        self._bar.stop()


def progress() -> Progress:
    """A progress bar where stderr is a terminal, else nothing."""
    return Bar() if sys.stderr.isatty() else Silent()
