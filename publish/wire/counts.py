"""What the calling thread has asked for, by whatever client."""

from __future__ import annotations

import threading

_COMMITS = threading.local()


def commits_of_thread() -> int:
    """Commits that the calling thread has asked for so far, whatever was answered."""
    return getattr(_COMMITS, "sent", 0)


def note_commit() -> None:
    """One more."""
    _COMMITS.sent = commits_of_thread() + 1
