"""What the rehearsal Hub says no with, and what it cannot start with.

Outside fact (facts/hub-protocol.md): errors are JSON ``{"error"}`` with ``X-Error-Message`` and
``X-Error-Code``; over plain http a client picks its exception class by ``X-Error-Code`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from publish.errors import PublishError


class RehearsalError(PublishError):
    """The rehearsal Hub cannot start: its port, its folder, or its faults file."""


class Refusal(Exception):
    """An answer that says no. ``code`` is the Hub's X-Error-Code, ``extra`` joins the JSON body."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, message, code)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def unauthorized() -> Refusal:
    return Refusal(401, "Invalid username or password.")


def forbidden(message: str) -> Refusal:
    return Refusal(403, message)


def repo_not_found() -> Refusal:
    return Refusal(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> Refusal:
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(message: str, commit: str | None = None) -> Refusal:
    """``commit``: the revision that was looked at; a client remembers the absence under it."""
    return Refusal(404, message, "EntryNotFound", {"X-Repo-Commit": commit} if commit else None)
