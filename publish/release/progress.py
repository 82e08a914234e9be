"""Progress for people, on stderr; silent when stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from publish.hub.rate_limits import Wait


class Progress(Protocol):
    """What a release tells while it runs."""

    def start(self, total: int, done: int) -> None: ...

    def step(self, step: int, outcome: str) -> None: ...

    def wait(self, wait: Wait) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Says nothing."""

    def start(self, total: int, done: int) -> None: ...

    def step(self, step: int, outcome: str) -> None: ...

    def wait(self, wait: Wait) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Bar:
    """A bar with steps done, failed and left, and what is waited for."""

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

    def step(self, step: int, outcome: str) -> None:
        self._failed += outcome == "failed"
        note = f"step{step}" + (f", {self._failed} failed" if self._failed else "")
        self._bar.update(self._task, advance=1, note=note)

    def wait(self, wait: Wait) -> None:
        until = time.strftime("%H:%M:%S", time.localtime(wait.until))
        self._bar.update(self._task, note=f"waiting for {wait.reason} until {until}")

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text)

    def stop(self) -> None:
        self._bar.stop()


def progress() -> Progress:
    """A bar on a terminal, else silence."""
    return Bar() if sys.stderr.isatty() else Silent()
